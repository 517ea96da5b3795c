"""d2-isonet show-data: the pixels, boxes, masks and names that the network is fed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import chromium, opened  # noqa: F401
from PIL import Image

from d2_isonet.commands import show_data
from d2_isonet.config.loading import load_config
from d2_isonet.data.pixels import pixels_of
from d2_isonet.reporting.data_preview import (
    drawn,
    from_annotations,
    from_mapper,
    seen_by_network,
)

DETECTOR = "configs/quickstart/small_risonet18_dc5.yaml"
CLASSIFIER = "configs/quickstart/small_risonet18.yaml"
RED = (250, 20, 30)


@pytest.fixture
def red_square(tmp_path) -> list[str]:
    """Options of a set of one grey image, 80 x 60, with a red square and its mask."""
    pixels = np.full((60, 80, 3), 128, np.uint8)
    pixels[10:30, 4:24] = RED
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "0.png")
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [4, 10, 20, 20], "iscrowd": 0,
                  "area": 400, "segmentation": [[4, 10, 24, 10, 24, 30, 4, 30]]}  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "0.png", "width": 80, "height": 60}],
        "annotations": [annotation], "categories": [{"id": 3, "name": "<b>square</b>"}],
    }  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(content))
    return [
        "--train-json",
        str(tmp_path / "train.json"),
        "--train-images",
        str(tmp_path / "images"),
    ]


def config_of(config_file: str, data: list[str], *opts: str):
    words = ["--config-file", config_file, *data, *opts]
    return show_data.setup(show_data.argument_parser().parse_args(words))


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("masks", ["polygon", "bitmask"])
def test_boxes_and_masks_lie_on_the_objects_after_augmentation(order, masks, red_square):
    # twice as large, and flipped in a half of the draws
    opts = [f"INPUT.FORMAT={order}", f"INPUT.MASK_FORMAT={masks}", "INPUT.MIN_SIZE_TRAIN=(120,)",
            "SOLVER.IMS_PER_BATCH=1", "SEED=3"]  # fmt: skip
    cfg = config_of(DETECTOR, red_square, *opts)
    lefts = set()
    for sample in from_mapper(cfg, 6):
        assert sample.pixels.shape == (120, 160, 3) and sample.names == ["<b>square</b>"]
        x, y, w, h = (round(v) for v in sample.objects[0]["bbox"])
        assert (y, w, h) == (20, 40, 40)
        lefts.add(x)
        assert np.abs(sample.pixels[y + 6 : y + 34, x + 6 : x + 34].astype(int) - RED).max() < 3
        assert tuple(sample.pixels[100, 80]) == (128, 128, 128)
        assert "segmentation" in sample.objects[0]
    assert lefts == {8, 112}  # both sides were seen


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_what_is_fed_is_what_the_models_make_of_the_image(order):
    from detectron2.modeling.meta_arch import GeneralizedRCNN

    cfg = load_config(DETECTOR, ["INPUT.FORMAT", order])
    image = torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8)
    model = GeneralizedRCNN(
        backbone=Backbone(), proposal_generator=torch.nn.Identity(), roi_heads=torch.nn.Identity(),
        pixel_mean=cfg.MODEL.PIXEL_MEAN, pixel_std=cfg.MODEL.PIXEL_STD,
    )  # fmt: skip
    expected = model.preprocess_image([{"image": image}]).tensor[0]
    torch.testing.assert_close(pixels_of(cfg).normalize(image), expected)
    seen = torch.from_numpy(seen_by_network(expected, cfg)).permute(2, 0, 1)
    torch.testing.assert_close(seen, image if order == "RGB" else image.flip(0))


class Backbone(torch.nn.Module):
    size_divisibility = 0
    padding_constraints: dict = {}


def test_annotations_are_shown_as_they_are(red_square):
    (sample,) = from_annotations(config_of(DETECTOR, red_square), 5)
    assert sample.objects[0]["bbox"] == [4, 10, 20, 20] and sample.fed is None
    assert tuple(sample.pixels[20, 14]) == RED and sample.pixels.shape == (60, 80, 3)
    image = drawn(sample, ["<b>square</b>"])
    assert image.shape[1] == 640 and (image != 128).any()


@pytest.fixture
def folder(tmp_path) -> list[str]:
    """Options of a tree of two classes, red and blue."""
    for name, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
        (tmp_path / "tree/train" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (90, 80), colour).save(tmp_path / f"tree/train/{name}/{i}.png")
    (tmp_path / "tree/val").mkdir()
    return ["--data-root", str(tmp_path / "tree")]


@pytest.mark.parametrize("source", [from_mapper, from_annotations])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_a_classifiers_images_have_their_class_and_colours(source, order, folder):
    cfg = config_of(CLASSIFIER, folder, f"INPUT.FORMAT={order}", "SOLVER.IMS_PER_BATCH=2")
    samples = list(source(cfg, 6))
    for sample in samples:
        expected = {"red": (255, 0, 0), "blue": (0, 0, 255)}[sample.names[0]]
        assert tuple(sample.pixels[30, 30]) == expected
    assert len(samples) == 6 and {s.names[0] for s in samples} == {"red", "blue"}
    assert samples[0].pixels.shape == ((64, 64, 3) if source is from_mapper else (80, 90, 3))


def test_an_unreadable_image_is_stepped_over_as_in_training(folder):
    next(Path(folder[1]).glob("train/red/*.png")).write_bytes(b"no image")
    opts = ("DATALOADER.MAX_UNREADABLE=0.5", "SOLVER.IMS_PER_BATCH=2")
    assert len(list(from_mapper(config_of(CLASSIFIER, folder, *opts), 6))) == 6


def test_chromium_shows_the_page(red_square, chromium, tmp_path):  # noqa: F811
    output = tmp_path / "preview"
    show_data.main(["--config-file", DETECTOR, *red_square, "--output", str(output),
                         "--num-images", "3", "SOLVER.IMS_PER_BATCH=1"])  # fmt: skip
    assert len(list(output.glob("*.jpg"))) == 3
    with opened(chromium, output / "index.html") as page:
        assert "<b>square</b>" in page.locator("table").last.inner_text()
        assert page.locator(".gallery img").count() == 3


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config-file", "not_there.yaml"], "not_there.yaml"),
        (
            ["--config-file", DETECTOR, "--data-root", "x"],
            "is of a detector; give --train-annotations",
        ),
        (
            ["--config-file", CLASSIFIER, "--train-json", "x"],
            "is of a classifier; give --data-root",
        ),
        (["--config-file", CLASSIFIER, "--data-root", "not_there"], "does not exist"),
        (["--config-file", DETECTOR, "--train-json", "x"], "go together"),
        (["--config-file", DETECTOR, "--images", "0"], "--num-images is 0; it must be at least 1"),
        (["--config-file", DETECTOR, "--output", "setup.py"], "is a file: give a folder"),
    ],
)
def test_bad_input_is_one_message(arguments, message, capsys, tmp_path, monkeypatch):
    with pytest.raises(SystemExit):
        show_data.main(arguments)
    assert message in capsys.readouterr().err
