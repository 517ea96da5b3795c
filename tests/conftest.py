"""Fixtures that several test files share."""

import logging
import os
from pathlib import Path

import pytest
from repository import REPOSITORY

# The networks of the tests are too small for threads; torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: E402

# detectron2's log handlers outlive the stdout that pytest gave to the test that opened them
logging.raiseExceptions = False


@pytest.fixture(autouse=True)
def _process_state():
    """What a script sets for its process, which a test before may have run in this one."""
    torch.manual_seed(0)
    torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True, scope="module")
def _own_catalogs():
    """What a file's tests register in detectron2's catalogs is unknown to the next file's."""
    loaders = dict(DatasetCatalog)
    metadata = {name: dict(vars(MetadataCatalog.get(name))) for name in MetadataCatalog}
    yield
    for name in set(DatasetCatalog) - set(loaders):
        DatasetCatalog.pop(name)
    for name in set(MetadataCatalog) - set(metadata):
        MetadataCatalog.pop(name)
    DatasetCatalog.update(loaders)
    for name, values in metadata.items():
        known = vars(MetadataCatalog.get(name))
        known.clear()
        known.update(values)


@pytest.fixture
def fork_server(monkeypatch):
    """`launch` starts its processes at once, see fork_server.py."""
    import fork_server

    monkeypatch.setattr("torch.multiprocessing.start_processes", fork_server.start_processes)


@pytest.fixture
def samples() -> Path:
    """Folder of real COCO and ImageNet samples in their official layouts; skips without it."""
    folder = Path(os.environ.get("D2_ISONET_SAMPLES", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "coco" / "annotations").is_dir():
        pytest.skip(f"no sample data in {folder} (set D2_ISONET_SAMPLES)")
    return folder


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture
def coco_batch() -> list[dict]:
    """Two training inputs of GeneralizedRCNN with boxes, polygon masks and 3 classes."""
    from detectron2.structures import Boxes, Instances, PolygonMasks

    def example(height: int, width: int, boxes: list) -> dict:
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
        instances.gt_classes = torch.arange(len(boxes)) % 3
        corners = [[[x0, y0, x1, y0, x1, y1, x0, y1]] for x0, y0, x1, y1 in boxes]
        instances.gt_masks = PolygonMasks(corners)
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        return {"image": image, "height": height, "width": width, "instances": instances}

    return [
        example(96, 128, [[8, 8, 60, 70], [50, 20, 120, 90]]),
        example(80, 96, [[10, 5, 70, 75]]),
    ]


@pytest.fixture
def coco_files(tmp_path) -> tuple[Path, Path]:
    """A COCO json of 4 images and 3 classes with ids 3, 7, 9, and the folder of its images."""
    import json

    import numpy as np
    from PIL import Image

    images_folder = tmp_path / "images"
    images_folder.mkdir()
    images, annotations = [], []
    for i in range(4):
        pixels = np.random.RandomState(i).randint(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images_folder / f"{i}.jpg")
        images.append({"id": i, "file_name": f"{i}.jpg", "height": 60, "width": 80})
        for j, category in enumerate((3, 7, 9)[: 1 + i % 3]):
            x, y, w, h = 5 + 20 * j, 6, 18, 40
            annotations.append(
                {
                    "id": 10 * i + j + 1,
                    "image_id": i,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    categories = [{"id": i, "name": n} for i, n in ((9, "ship"), (3, "cat"), (7, "tree"))]
    file = tmp_path / "instances.json"
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return file, images_folder
