"""Unreadable training images are replaced, logged once and counted, up to a limit."""

import json
import logging

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, DatasetFromList, DatasetMapper
from detectron2.utils.events import EventStorage
from PIL import Image

from d2_isonet.config.loading import load_config
from d2_isonet.data.datasets import register_coco_files
from d2_isonet.data.image_file import UnreadableImage
from d2_isonet.data.imagenet import ImageNetMapper, build_image_train_loader
from d2_isonet.data.loader import LoaderOptions
from d2_isonet.data.unreadable_images import CountingLoader, NamingDatasetMapper, ReplacingMapper
from d2_isonet.engine.trainer import Trainer

OPTS = [
    "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "DATASETS.TRAIN", "('unreadable_set',)",
    "DATASETS.TEST", "()", "MODEL.ROI_HEADS.NUM_CLASSES", "3", "SOLVER.IMS_PER_BATCH", "2",
    "SOLVER.REFERENCE_WORLD_SIZE", "0",
    "INPUT.MIN_SIZE_TRAIN", "(64,)", "DATALOADER.NUM_WORKERS", "0",
]  # fmt: skip


class Mapper:
    """Reads nothing: an image is unreadable if its name says so."""

    def __call__(self, dataset_dict: dict) -> dict:
        if "bad" in dataset_dict["file_name"]:
            raise UnreadableImage(f"Image {dataset_dict['file_name']} cannot be read")
        return {"image": dataset_dict["file_name"]}


def dicts(*names: str) -> list[dict]:
    return [{"file_name": name} for name in names]


def iterate(loader, batches: int) -> list[list[dict]]:
    with EventStorage() as storage:
        taken = [batch for batch, _ in zip(loader, range(batches), strict=False)]
        storage.step()
    return taken


def test_another_image_is_taken_the_same_one_every_time():
    images = dicts("bad.jpg", *(f"{i}.jpg" for i in range(50)))
    samples = [ReplacingMapper(Mapper(), images)(images[0]) for _ in range(3)]
    assert samples[0] == samples[1] == samples[2]
    assert samples[0]["image"] in {d["file_name"] for d in images[1:]}
    assert samples[0]["unreadable_images"] == {"bad.jpg": "Image bad.jpg cannot be read"}


def test_different_images_are_not_all_replaced_by_the_same_one():
    images = dicts(*(f"{i}.jpg" for i in range(50)))
    mapper = ReplacingMapper(Mapper(), images)
    taken = {mapper(bad)["image"] for bad in dicts(*(f"bad{i}.jpg" for i in range(20)))}
    assert len(taken) > 10


def test_a_readable_image_is_mapped_as_without():
    assert ReplacingMapper(Mapper(), dicts("a.jpg"))(dicts("a.jpg")[0]) == {"image": "a.jpg"}


def test_a_disk_that_is_gone_ends_the_training():
    images = dicts(*(f"bad{i}.jpg" for i in range(100)))
    with pytest.raises(
        UnreadableImage, match="10 images in a row cannot be read, the last one: Im"
    ):
        ReplacingMapper(Mapper(), images)(images[0])


def test_other_errors_are_not_taken_for_unreadable_images():
    def mapper(dataset_dict):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        ReplacingMapper(mapper, dicts("a.jpg"))(dicts("a.jpg")[0])


def test_each_file_is_named_once_and_counted(caplog):
    bad = {"image": 0, "unreadable_images": {"bad.jpg": "Image bad.jpg cannot be read"}}
    loader = CountingLoader([[dict(bad)], [dict(bad)], [{"image": 1}]], number=100, max_share=0.01)
    with EventStorage() as storage, caplog.at_level(logging.WARNING):
        batches = list(loader)
    assert batches == [[{"image": 0}], [{"image": 0}], [{"image": 1}]]
    assert caplog.text.count("bad.jpg cannot be read") == 1
    assert storage.latest()["unreadable_images"][0] == 1


def test_more_than_the_share_ends_the_training_and_names_the_last():
    batches = [[{"unreadable_images": {f"{i}.jpg": f"Image {i}.jpg is gone"}}] for i in range(3)]
    loader = CountingLoader(batches, number=100, max_share=0.02)
    with EventStorage(), pytest.raises(
        UnreadableImage, match="3 of 100 training images .*UNREADABLE 0.02 .*Image 2.jpg is gone"
    ):  # fmt: skip
        list(loader)


def test_the_counting_loader_is_the_loader_in_all_other_respects():
    class Loader(list):
        batch_sampler = "its own"

    assert CountingLoader(Loader(), 1, 0.5).batch_sampler == "its own"


@pytest.fixture
def folder(tmp_path):
    """20 images of classes, of which the second is truncated and the third is gone."""
    paths = [tmp_path / f"{i}.jpg" for i in range(20)]
    for path in paths:
        Image.effect_noise((40, 40), 60).save(path)
    paths[1].write_bytes(paths[1].read_bytes()[:300])
    paths[2].unlink()
    return [{"file_name": str(path), "label": 0} for path in paths]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_pretraining_goes_on_without_them_in_every_batch(num_workers, folder):
    loader = build_image_train_loader(
        folder,
        ImageNetMapper(True, crop_size=8),
        LoaderOptions(4, num_workers, seed=0, max_unreadable=0.1),
    )
    batches = iterate(loader, 12)
    assert [len(batch) for batch in batches] == [4] * 12
    assert loader.files == {folder[1]["file_name"], folder[2]["file_name"]}


def test_pretraining_ends_at_the_first_one_by_default(folder):
    loader = build_image_train_loader(
        folder, ImageNetMapper(True, crop_size=8), LoaderOptions(4, seed=0)
    )
    with pytest.raises((UnreadableImage, FileNotFoundError), match="Image .*/(1|2).jpg"):
        iterate(loader, 5)


@pytest.fixture
def detection(coco_files):
    """A registered set whose second image is truncated; its folder."""
    json_file, images = coco_files
    register_coco_files("unreadable_set", str(json_file), str(images))
    (images / "1.jpg").write_bytes((images / "1.jpg").read_bytes()[:700])
    return images


@pytest.mark.parametrize("num_workers", [0, 1])
def test_detection_goes_on_and_the_run_counts_them(num_workers, detection, tmp_path):
    opts = ["DATALOADER.MAX_UNREADABLE", "0.3", "SOLVER.MAX_ITER", "4", "SOLVER.STEPS", "()",
            "DATALOADER.NUM_WORKERS", str(num_workers), "MODEL.RESNETS.DEPTH", "18",
            "INPUT.MIN_SIZE_TRAIN", "(32,)", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "20",
            "OUTPUT_DIR", str(tmp_path / "out")]  # fmt: skip
    (tmp_path / "out").mkdir()
    trainer = Trainer(load_config("configs/risonet18_c4.yaml", [*OPTS, *opts]))
    trainer.train()
    lines = (tmp_path / "out/metrics.json").read_text().splitlines()
    assert json.loads(lines[-1])["unreadable_images"] == 1


def test_detection_names_it_by_default(detection):
    loader = Trainer.build_train_loader(load_config("configs/risonet18_c4.yaml", OPTS))
    with pytest.raises(
        UnreadableImage, match=f"Image {detection}/1.jpg cannot be read .*truncated"
    ):
        iterate(loader, 4)


def test_an_evaluation_names_it_whatever_the_share(detection):
    cfg = load_config("configs/risonet18_c4.yaml", [*OPTS, "DATALOADER.MAX_UNREADABLE", "0.9"])
    with pytest.raises(UnreadableImage, match=f"Image {detection}/1.jpg cannot be read"):
        list(Trainer.build_test_loader(cfg, "unreadable_set"))


def test_sixteen_bits_are_refused_instead_of_clipped(tmp_path):
    Image.fromarray(np.full((60, 80), 40000, dtype=np.uint16)).save(tmp_path / "deep.png")
    mapper = NamingDatasetMapper(load_config("configs/risonet18_c4.yaml", OPTS), False)
    with pytest.raises(
        UnreadableImage, match="deep.png has more than 8 bits .*save it with 8 bits"
    ):
        mapper({"file_name": str(tmp_path / "deep.png"), "width": 80, "height": 60})


def test_a_wrong_size_is_no_unreadable_image(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    mapper = NamingDatasetMapper(load_config("configs/risonet18_c4.yaml", OPTS), False)
    with pytest.raises(ValueError, match="Mismatched image shape") as error:
        mapper({"file_name": str(tmp_path / "a.png"), "width": 80, "height": 60})
    assert not isinstance(error.value, UnreadableImage)


def test_serialized_dicts_serve_as_well():
    images = DatasetFromList(dicts("bad.jpg", "a.jpg", "b.jpg"), copy=False)
    assert ReplacingMapper(Mapper(), images)(images[0])["image"] in ("a.jpg", "b.jpg")


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("masks", ["polygon", "bitmask"])
def test_a_readable_image_is_mapped_as_by_detectron2_to_the_bit(masks, is_train, coco_files):
    json_file, images = coco_files
    register_coco_files("mapped_set", str(json_file), str(images))
    opts = ["INPUT.MASK_FORMAT", masks, "INPUT.MIN_SIZE_TEST", "50", "INPUT.FORMAT", "RGB"]
    cfg = load_config("configs/risonet18_c4.yaml", [*OPTS, *opts])
    for sample in DatasetCatalog.get("mapped_set"):
        mapped = []
        for mapper in (NamingDatasetMapper(cfg, is_train), DatasetMapper(cfg, is_train)):
            np.random.seed(0)
            mapped.append(mapper(sample))
        ours, theirs = mapped
        assert ours.keys() == theirs.keys() and (ours["image"] == theirs["image"]).all()
        if is_train:
            ours, theirs = (x["instances"] for x in mapped)
            assert (ours.gt_boxes.tensor == theirs.gt_boxes.tensor).all()
            assert (ours.gt_classes == theirs.gt_classes).all() and len(ours) == len(theirs)
            pairs = zip(ours.gt_masks, theirs.gt_masks, strict=True)
            assert all(np.array_equal(np.ravel(a), np.ravel(b)) for a, b in pairs)
