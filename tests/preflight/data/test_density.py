"""Objects that are too many or too small for a detector, and pixels that it does not expect."""

import json
import shlex

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from d2_isonet.config.loading import load_config
from d2_isonet.data.datasets import register_coco_files
from d2_isonet.preflight.data.sets import dataset_findings

NAME = "dense_set"


@pytest.fixture
def findings(tmp_path):
    """The findings of a severity on 3 images with objects of a side, for a config."""
    yield lambda config, *args, **options: _findings(tmp_path, config, *args, **options)
    DatasetCatalog.remove(NAME)
    MetadataCatalog.pop(NAME)


def _findings(folder, config, number, side, severity="warning", opts=(), gray=120) -> list:
    random = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(3):
        pixels = random.normal(gray, 55, (400, 600, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 600, "height": 400})
        for x, y in random.uniform(0, (600 - side, 400 - side), (number if i else 2, 2)):
            mask = [[x, y, x + side, y, x + side, y + side, x, y + side]]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": 1, "iscrowd": 0,
                 "bbox": [x, y, side, side], "area": side**2, "segmentation": mask}
            )  # fmt: skip
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "nucleus"}]
    (folder / "x.json").write_text(json.dumps(content))
    register_coco_files(NAME, str(folder / "x.json"), str(folder))
    cfg = load_config(config, ["MODEL.ROI_HEADS.NUM_CLASSES", "1", *opts])
    cfg.MODEL.RETINANET.NUM_CLASSES, cfg.SOLVER.MAX_ITER = 1, 1
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (NAME,), ()
    return [x for x in dataset_findings(cfg, number=-1) if x.severity == severity]


def pairs_of(remedy: str) -> list[str]:
    """The KEY VALUE pairs of a printed remedy, as a shell gives them to a command."""
    return shlex.split(remedy.removeprefix("set ").partition(", or ")[0])


CONFIGS = ["risonet18_c4", "risonet18_dc5", "risonet18_fpn", "retinanet_risonet50_fpn"]


@pytest.mark.parametrize("config", CONFIGS)
def test_images_with_more_objects_than_can_be_found_are_counted(config, findings):
    (found,) = findings(f"configs/{config}.yaml", 1200, 60)
    assert found.what.startswith("2 of 3 images hold more objects, the densest 1200, than can be")
    assert "TEST.DETECTIONS_PER_IMAGE 100" in found.what
    assert ("MODEL.RPN.POST_NMS_TOPK_TEST 1000" in found.what) == ("retina" not in config)
    assert not findings(f"configs/{config}.yaml", 1200, 60, opts=pairs_of(found.remedy))


def test_the_number_of_objects_is_a_fact(findings):
    texts = [f.what for f in findings("configs/risonet18_c4.yaml", 40, 60, "fact")]
    assert "objects an image: 2 to 40, 27.3 on average; a class: nucleus 82" in texts


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("side", "kind"), [(4, "small"), (6, "small"), (380, None), (60, None)])
def test_objects_without_an_anchor_get_a_line_that_fits(config, side, kind, findings):
    found = findings(f"configs/{config}.yaml", 20, side)
    assert [f.what for f in found] == [
        f"100% of the objects are too {kind} for every anchor (IoU below 0.3)"
    ] * bool(kind)
    for finding in found:
        lines = finding.remedy.removeprefix("set ").split(", or resize to ")
        for line in lines:
            assert not findings(f"configs/{config}.yaml", 20, side, opts=shlex.split(line)), line


def test_objects_too_large_for_the_anchors_get_one_too(findings):
    opts = ["MODEL.ANCHOR_GENERATOR.SIZES", "[[8, 16, 32]]"]
    (found,) = findings("configs/risonet18_c4.yaml", 20, 200, opts=opts)
    assert "too large" in found.what
    assert not findings("configs/risonet18_c4.yaml", 20, 200, opts=[*opts, *pairs_of(found.remedy)])


@pytest.mark.parametrize(("gray", "number"), [(120, 0), (190, 0), (245, 1), (3, 1)])
def test_pixels_far_from_what_the_network_expects_are_told(gray, number, findings):
    texts = [f.what for f in findings("configs/risonet18_c4.yaml", 9, 60, "fact", gray=gray)]
    assert sum("pixels (RGB) of 3 images: mean [" in text for text in texts) == 1
    found = findings("configs/risonet18_c4.yaml", 9, 60, gray=gray)
    assert len(found) == number
    for finding in found:
        opts = shlex.split(finding.remedy.removeprefix("set ").rpartition(", if")[0])
        assert not findings("configs/risonet18_c4.yaml", 9, 60, opts=opts, gray=gray)


def test_means_of_fractions_are_told(findings):
    opts = ["MODEL.PIXEL_MEAN", "[0.485, 0.456, 0.406]", "MODEL.PIXEL_STD", "[0.23, 0.22, 0.23]"]
    (found,) = findings("configs/risonet18_c4.yaml", 9, 60, opts=opts)
    assert "the network expects other pixels" in found.what
