"""Copies of images are found by what they show, within a set and between two."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2_isonet.config.loading import load_config
from d2_isonet.preflight.data import copies
from d2_isonet.preflight.data.copies import copy_findings
from d2_isonet.preflight.data.images import number_to_read


def photograph(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Shapes of several sizes, as a photograph has them, with some noise."""
    random, pixels = np.random.RandomState(seed), np.zeros((height, width, 3))
    for cells, weight in ((4, 90), (12, 50), (40, 20)):
        layer = random.randint(0, 256, (cells, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(layer).resize((width, height), Image.Resampling.BICUBIC)
        pixels += np.asarray(layer, float) * weight / 160
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def turned(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def commented(image: Image.Image, path: Path) -> None:
    data = Path(image.filename).read_bytes()
    path.write_bytes(data[:2] + b"\xff\xfe\x00\x05abc" + data[2:])


SAME = {  # how the file of another name is made of the photograph of a JPEG
    "the file": ("a.jpg", lambda i, p: p.write_bytes(Path(i.filename).read_bytes())),
    "its metadata changed": ("a.jpg", commented),
    "in another format": ("a.png", lambda i, p: i.save(p)),
}
ALIKE = {
    "poor quality": ("a.jpg", lambda i, p: i.save(p, quality=40)),
    "half the size": ("a.jpg", lambda i, p: i.resize((80, 60)).save(p)),
    "another shape": ("a.jpg", lambda i, p: i.resize((200, 200)).save(p)),
    "webp": ("a.webp", lambda i, p: i.save(p)),
    "grey": ("a.jpg", lambda i, p: i.convert("L").save(p)),
    "brighter": ("a.jpg", lambda i, p: i.point(lambda v: int(v * 1.1)).save(p)),
    "turned, with the EXIF that says so": ("a.jpg", turned),
}
OTHER = {
    "another photograph": ("a.jpg", lambda i, p: photograph(9).save(p)),
    "mirrored": ("a.jpg", lambda i, p: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(p)),
    "flat": ("a.jpg", lambda i, p: Image.new("RGB", i.size, "gray").save(p)),
    "damaged": ("a.jpg", lambda i, p: p.write_bytes(b"no image")),
}


@pytest.fixture
def folder(tmp_path):
    """train/ of three photographs, val/ of another one."""
    for name, seed in (("train/0", 0), ("train/1", 1), ("train/2", 2), ("val/3", 3)):
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        photograph(seed).save(path, quality=92)
    return tmp_path


def said(folder: Path, number: int = -1) -> str:
    sets = ([str(p) for p in sorted((folder / x).iterdir())] for x in ("train", "val"))
    findings = [*copy_findings(*sets, number)]
    assert all(finding.severity == "warning" for finding in findings)
    return "\n".join(map(str, findings)).replace(str(folder), "")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        *((*x, "1 of 2 images that are trained on as well: /val/{} (as /train/1.jpg)")
          for x in SAME.values()),
        *((*x, "1 of 2 images that look like one that is trained on: /val/{} (like /train/1.jpg)")
          for x in ALIKE.values()),
        *((*x, "") for x in OTHER.values()),
    ],
    ids=[*SAME, *ALIKE, *OTHER],
)  # fmt: skip
def test_a_copy_in_validation_is_found(name, change, words, folder):
    with Image.open(folder / "train/1.jpg") as image:
        change(image, folder / "val" / name)
    found = said(folder)
    assert words.format(name) in found and bool(words) == bool(found), found


def test_a_copy_within_a_set_is_found(folder):
    (folder / "train/9.jpg").write_bytes((folder / "train/0.jpg").read_bytes())
    (folder / "val/9.jpg").write_bytes((folder / "val/3.jpg").read_bytes())
    found = said(folder)
    assert "DATASETS.TRAIN: 1 of 4 images that are a copy of another one of the set: " in found
    assert "/train/9.jpg (as /train/0.jpg)" in found and "/val/9.jpg (as /val/3.jpg)" in found


def test_flat_images_are_copies_only_if_they_are_equal(folder):
    for number, grey in enumerate((0, 0, 255)):
        Image.new("RGB", (50, 50), (grey,) * 3).save(folder / "val" / f"flat{number}.png")
    Image.new("RGB", (50, 50), (99,) * 3).save(folder / "train/flat.png")
    assert said(folder).count(" (") == 1  # flat1 as flat0


def test_the_same_path_in_both_is_found_without_reading(folder):
    path = str(folder / "train/0.jpg")
    assert [f.items for f in copy_findings([path], [path], 1)] == [(path,)]
    assert not [*copy_findings([path], [path], 0)]


def test_many_images_are_compared_in_blocks(folder, monkeypatch):
    monkeypatch.setattr(copies, "_BLOCK", 1)
    for number in range(3):
        with Image.open(folder / f"train/{number}.jpg") as image:
            image.save(folder / f"val/{number + 5}.webp")
    assert "3 of 4 images that look like one that is trained on" in said(folder)


def test_sets_of_up_to_20000_images_are_read_completely_before_a_training():
    cfg = load_config("configs/risonet18_c4.yaml", [])
    assert number_to_read(cfg, 18_000, 2_000) == number_to_read(cfg, 1, 0) == -1
    assert number_to_read(cfg, 18_000, 2_001) == 500
    assert number_to_read(cfg, 0, 2_000) == 500  # an evaluation
    cfg.DATASETS.CHECKED_IMAGES = 0
    assert number_to_read(cfg, 18_000, 2_000) == 0
