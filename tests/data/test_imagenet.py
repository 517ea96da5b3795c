"""ImageNet's mapper and loaders against torchvision's, and top-1/top-5 against hand counts."""

import os
from collections import Counter
from itertools import islice

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import inference_on_dataset, print_csv_format
from PIL import Image
from torch import nn
from torchvision import transforms

from d2_isonet.config.loading import load_config
from d2_isonet.data.datasets import load_registered
from d2_isonet.data.imagenet import (
    ImageNetMapper,
    build_image_test_loader,
    build_image_train_loader,
    classification_mapper,
)
from d2_isonet.data.loader import LoaderOptions
from d2_isonet.distributed.launch import launch
from d2_isonet.evaluation.classification import ImageNetEvaluator

AUTHORS_TRANSFORMS = {
    True: [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()],
    False: [transforms.Resize(256), transforms.CenterCrop(224)],
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> str:
    """3 classes with 4 images of coloured noise each, in train/; val/ is the same."""
    root = tmp_path_factory.mktemp("tree")
    for name in "abc":
        (root / "train" / name).mkdir(parents=True)
        for index in range(4):
            pixels = torch.randint(0, 256, (50, 40 + 8 * index, 3), dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(root / "train" / name / f"{index}.png")
    (root / "val").symlink_to(root / "train")
    return str(root)


@pytest.fixture
def dicts(tree, monkeypatch) -> list[dict]:
    monkeypatch.setenv("DETECTRON2_DATASETS", os.path.join(tree, "sets"))
    os.makedirs(os.path.join(tree, "sets"), exist_ok=True)
    if not os.path.exists(os.path.join(tree, "sets", "imagenet")):
        os.symlink(tree, os.path.join(tree, "sets", "imagenet"))
    return DatasetCatalog.get("imagenet_train")


@pytest.mark.parametrize("is_train", [True, False])
def test_mapper_gives_the_pixels_of_torchvision(is_train, samples, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(samples))
    theirs = transforms.Compose([*AUTHORS_TRANSFORMS[is_train], transforms.PILToTensor()])
    mapper = ImageNetMapper(is_train, exact_crops=True)
    for seed, image_dict in enumerate(DatasetCatalog.get("imagenet_train")[::24]):
        torch.manual_seed(seed)
        ours = mapper(image_dict)["image"]
        torch.manual_seed(seed)
        expected = theirs(Image.open(image_dict["file_name"]).convert("RGB"))
        assert ours.dtype == torch.uint8 and torch.equal(ours, expected)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_padding_gives_the_cifar_recipe_of_torchvision(order, dicts):
    theirs = transforms.Compose(
        [transforms.Resize(20), transforms.RandomCrop(16, padding=3),
         transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    )  # fmt: skip
    mapper = ImageNetMapper(True, order, crop_size=16, resize=20, padding=3)
    for seed, image_dict in enumerate(dicts):
        torch.manual_seed(seed)
        ours = mapper(image_dict)["image"]
        torch.manual_seed(seed)
        expected = theirs(Image.open(image_dict["file_name"]))
        assert torch.equal(ours, expected.flip(0) if order == "BGR" else expected)


def test_every_padded_crop_is_a_shifted_or_flipped_window_of_the_image(tmp_path):
    pixels = torch.randint(1, 256, (14, 14, 3), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "x.png")
    mapper = ImageNetMapper(True, crop_size=14, resize=14, padding=2)
    padded = torch.nn.functional.pad(pixels.permute(2, 0, 1), (2, 2, 2, 2))
    windows = {
        (top, left, flipped): pixels[:, top : top + 14, left : left + 14]
        for flipped, pixels in enumerate((padded, padded.flip(2)))
        for top in range(5)
        for left in range(5)
    }
    drawn = Counter()
    for _ in range(800):
        image = mapper({"file_name": str(tmp_path / "x.png")})["image"]
        drawn.update(key for key, window in windows.items() if torch.equal(window, image))
    assert sum(drawn.values()) == 800 and len(drawn) == 50


def test_padding_does_not_touch_evaluation(dicts):
    plain, padded = (ImageNetMapper(False, "RGB", 14, 14, padding=n) for n in (0, 2))
    images = [mapper(dicts[3])["image"] for mapper in (plain, padded)]
    expected = transforms.CenterCrop(14)(transforms.Resize(14)(Image.open(dicts[3]["file_name"])))
    assert torch.equal(*images) and images[0].shape == (3, 14, 14)
    assert torch.equal(images[0], transforms.PILToTensor()(expected))


def test_keys_of_the_config_reach_the_mapper():
    cfg = load_config("configs/imagenet/risonet18.yaml", ["INPUT.CLASSIFICATION.PADDING", "4"])
    cfg.INPUT.CLASSIFICATION.CROP_SIZE, cfg.INPUT.CLASSIFICATION.RESIZE = 32, 33
    resize, crop, *_ = classification_mapper(cfg, is_train=True).transform.transforms
    assert (resize.size, crop.size, crop.padding) == (33, (32, 32), 4)


def test_samples_number_the_classes_of_val_as_train(samples, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(samples))
    (train, classes), (val, same) = map(load_registered, ("imagenet_train", "imagenet_val"))
    of_train = {os.path.basename(d["file_name"]): d["label"] for d in train}
    assert (len(train), len(val), len(classes)) == (240, 40, 240) and classes == same
    assert all(of_train[os.path.basename(d["file_name"])] == d["label"] for d in val)


def test_bgr_is_rgb_reversed(dicts):
    rgb, bgr = (ImageNetMapper(False, order, 32, 40)(dicts[0])["image"] for order in ("RGB", "BGR"))
    assert torch.equal(rgb.flip(0), bgr) and not torch.equal(rgb, bgr)


def test_mapper_keeps_what_the_dict_says(dicts):
    mapped = ImageNetMapper(True, crop_size=32)(dicts[5])
    assert {k: mapped[k] for k in dicts[5]} == dicts[5] and "image" not in dicts[5]


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.effect_noise((64, 64), 80).save(tmp_path / "x.png", exif=exif)
    Image.open(tmp_path / "x.png").save(tmp_path / "plain.png", exif=b"")
    tagged, plain = (
        ImageNetMapper(False, crop_size=64, resize=64)({"file_name": str(tmp_path / name)})["image"]
        for name in ("x.png", "plain.png")
    )
    assert torch.equal(tagged, plain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_format": "YUV"}, "INPUT.FORMAT is 'YUV'"),
        ({"crop_size": 300}, "INPUT.CLASSIFICATION.CROP_SIZE"),
        ({"is_train": True, "padding": -1}, "INPUT.CLASSIFICATION.PADDING is -1"),
        ({"is_train": True, "crop_size": 0}, "INPUT.CLASSIFICATION.CROP_SIZE is 0; .*least 1"),
        ({"resize": -5}, "INPUT.CLASSIFICATION.RESIZE is -5; it must be at least 1"),
        ({"is_train": True, "scale": (2.0, 1.0)}, "MIN_AREA is 2.0; .*from 0 to 1$"),
        ({"is_train": True, "scale": (-1.0, 1.0)}, "MIN_AREA is -1.0; .*from 0 to 1$"),
        ({"is_train": True, "crop_size": 265, "padding": 4}, "256 with 4 pixels around it"),
    ],
)
def test_impossible_mapper_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageNetMapper(**{"is_train": False, **arguments})


@pytest.mark.parametrize("num_workers", [0, 2])
def test_train_loader_shows_every_image_once_an_epoch(num_workers, dicts):
    mapper = ImageNetMapper(True, crop_size=16)
    loader = build_image_train_loader(dicts, mapper, LoaderOptions(2, num_workers, seed=1))
    seen = Counter(x["image_id"] for batch in islice(loader, 12) for x in batch)
    assert seen == {d["image_id"]: 2 for d in dicts}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_same_seeds_give_the_same_batches(num_workers, dicts):
    def batches():
        torch.manual_seed(3)
        mapper = ImageNetMapper(True, crop_size=16)
        loader = build_image_train_loader(dicts, mapper, LoaderOptions(4, num_workers, seed=3))
        return [(x["image_id"], x["image"].clone()) for b in islice(loader, 4) for x in b]

    for (id_a, image_a), (id_b, image_b) in zip(batches(), batches(), strict=True):
        assert id_a == id_b and torch.equal(image_a, image_b)


def test_another_epoch_crops_otherwise(dicts):
    loader = build_image_train_loader(
        dicts[:1], ImageNetMapper(True, crop_size=16), LoaderOptions(1, seed=0)
    )
    first, second = (batch[0]["image"] for batch in islice(loader, 2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "build",
    [lambda *args: build_image_train_loader(*args, LoaderOptions(4, num_workers=1)),
     lambda *args: build_image_test_loader(*args, 4, num_workers=1)],
    ids=["train", "test"],
)  # fmt: skip
def test_images_of_a_batch_share_one_storage(build, dicts):
    batch = next(iter(build(dicts, ImageNetMapper(False, "RGB", 16, 20))))
    assert len({x["image"].untyped_storage().data_ptr() for x in batch}) == 1


def test_test_loader_keeps_the_last_small_batch(dicts):
    loader = build_image_test_loader(
        load_registered("imagenet_val")[0], ImageNetMapper(False, "RGB", 16, 20), 5
    )
    ids = [[x["image_id"] for x in batch] for batch in loader]
    assert len(loader) == 3 and ids == [list(range(5)), list(range(5, 10)), [10, 11]]


def test_worker_names_the_unreadable_image(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(b"text")
    dicts = [{"file_name": str(path), "image_id": 0, "label": 0}]
    loader = build_image_train_loader(dicts, ImageNetMapper(True), LoaderOptions(1, num_workers=1))
    with pytest.raises(ValueError, match=f"Image {path} cannot be read"):
        next(iter(loader))


def process(evaluator, logits, labels):
    inputs = [{"label": label, "file_name": f"{i}.jpg"} for i, label in enumerate(labels)]
    evaluator.process(inputs, [{"logits": torch.tensor(x)} for x in logits])


def test_top1_and_top5_by_hand():
    evaluator = ImageNetEvaluator(7)
    falling = [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    process(evaluator, [falling] * 3, [0, 4, 5])  # right; among the first five; not
    process(evaluator, [falling], [6])
    assert evaluator.evaluate()["classification"] == {"top1": 25, "top5": 50, "num_images": 4}


def test_reset_forgets_and_few_classes_limit_top5(caplog):
    evaluator = ImageNetEvaluator(2)
    process(evaluator, [[1.0, 0.0]], [0])
    evaluator.reset()
    process(evaluator, [[1.0, 0.0]], [1])
    results = evaluator.evaluate()
    assert results["classification"] == {"top1": 0, "top5": 100, "num_images": 1}
    with caplog.at_level("INFO"):
        print_csv_format(results)
    assert "top1,top5,num_images" in caplog.text


@pytest.mark.parametrize(
    ("logits", "label", "error", "message"),
    [
        ([0.0] * 4, 0, ValueError, r"shape \(1, 4\), the data set has 3 classes; .*NUM_CLASSES"),
        ([0.0] * 3, 3, ValueError, "Label 3 of 0.jpg is not below .* 3"),
        ([0.0, torch.nan, 1], 0, FloatingPointError, "1 of 1 images have NaN .* 0.jpg"),
        ([0.0, torch.inf, 1], 0, FloatingPointError, "infinite"),
    ],
)
def test_evaluator_refuses_what_it_cannot_count(logits, label, error, message):
    with pytest.raises(error, match=message):
        process(ImageNetEvaluator(3), [logits], [label])


def test_no_image_is_an_error_not_an_accuracy():
    with pytest.raises(ValueError, match="No image was evaluated"):
        ImageNetEvaluator(3).evaluate()


class Guess(nn.Module):
    """Says class 0, and 1 for the images with an odd number."""

    def forward(self, batch):
        return [{"logits": torch.eye(3)[x["image_id"] % 2]} for x in batch]


def evaluate_guess(dicts, path):
    loader = build_image_test_loader(dicts, ImageNetMapper(False, "RGB", 16, 20), 2)
    results = inference_on_dataset(Guess(), loader, ImageNetEvaluator(3))
    if results:
        torch.save(dict(results), path)


@pytest.mark.usefixtures("fork_server")
def test_two_processes_count_as_one_does(dicts, tmp_path):
    for processes in (1, 2):
        launch(evaluate_guess, processes, args=(dicts[:11], str(tmp_path / str(processes))))
    one, two = (torch.load(tmp_path / name) for name in ("1", "2"))
    assert one == two and one["classification"]["num_images"] == 11
    assert one["classification"]["top1"] == pytest.approx(100 * 4 / 11)
