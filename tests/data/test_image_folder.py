"""Folder trees of classes: numbering, registration, and the errors of a wrong tree."""

import logging
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from d2_isonet.data.datasets import load_registered, register_data_root, register_image_folder
from d2_isonet.data.image_file import read_image
from d2_isonet.data.image_folder import load_image_folder


def make_tree(root: Path, *paths: str) -> Path:
    """Files of the given paths below `root`; a path that ends in / is an empty folder."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).mkdir() if path.endswith("/") else (root / path).write_bytes(b"x")
    return root


def labels(root: Path, split: str) -> dict[str, int]:
    dicts, _ = load_image_folder(str(root), split)
    return {str(Path(d["file_name"]).relative_to(root / split)): d["label"] for d in dicts}


def test_val_classes_are_numbered_by_the_folders_of_train(tmp_path):
    make_tree(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "val/c/1.jpg")
    assert labels(tmp_path, "val") == {"c/1.jpg": 2}


def test_without_train_the_folders_of_val_are_numbered(tmp_path):
    make_tree(tmp_path, "val/b/1.jpg", "val/a/1.jpg")
    assert labels(tmp_path, "val") == {"a/1.jpg": 0, "b/1.jpg": 1}


def test_images_of_any_usual_suffix_are_found_also_one_folder_down(tmp_path):
    names = ["x.JPEG", "x.jpg", "x.PNG", "x.webp", "x.bmp", "images/x.jpeg"]
    make_tree(tmp_path, *(f"train/a/{name}" for name in names))
    assert sorted(labels(tmp_path, "train")) == sorted(f"a/{name}" for name in names)


def test_links_to_folders_and_files_are_followed(tmp_path):
    make_tree(tmp_path, "elsewhere/1.jpg", "train/b/1.jpg")
    (tmp_path / "train/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train/b/2.jpg").symlink_to(tmp_path / "elsewhere/1.jpg")
    (tmp_path / "train/b/sub").symlink_to(tmp_path / "elsewhere")
    found = {"a/1.jpg": 0, "b/1.jpg": 1, "b/2.jpg": 1, "b/sub/1.jpg": 1}
    assert labels(tmp_path, "train") == found


def test_hidden_files_and_folders_are_no_images_and_no_classes(tmp_path):
    make_tree(tmp_path, "train/a/1.jpg", "train/a/._1.jpg", "train/.cache/1.jpg")
    assert labels(tmp_path, "train") == {"a/1.jpg": 0}


def test_files_left_out_are_told(tmp_path, caplog):
    make_tree(tmp_path, "train/a/1.jpg", "train/a/2.heic")
    with caplog.at_level(logging.WARNING):
        load_image_folder(str(tmp_path), "train")
    assert "1 files" in caplog.text and "2.heic" in caplog.text


@pytest.mark.parametrize(
    ("paths", "split", "error", "message"),
    [
        ([], "train", FileNotFoundError, r"{root} does not exist; .*DETECTRON2_DATASETS"),
        (["a.txt"], "train", FileNotFoundError, r"{root} has no train/ \(folders there: none\)"),
        (["train/a/1.jpg", "test/"], "val", FileNotFoundError, r"no val/ .*there: test, train\)"),
        (["train/1.jpg"], "train", ValueError, r"no class folders; 1 images lie directly in it"),
        (["train/"], "train", ValueError, r"{root}/train has no class folders; put"),
        (["train/a/", "train/b/x.txt"], "train", ValueError, r"2 class .* no image in any"),
        (
            ["train/a/1.jpg", *(f"train/b{i}/" for i in range(7))],
            "train",
            ValueError,
            r"7 class folder\(s\) without an image: b0, b1, b2, b3, b4 and 2 more; add",
        ),
        (
            ["train/a/1.jpg", "val/a/1.jpg", "val/b/1.jpg"],
            "val",
            ValueError,
            r"train does not have: b;",
        ),
    ],
)
def test_wrong_tree_is_named_with_a_remedy(paths, split, error, message, tmp_path):
    root = make_tree(tmp_path / "data", *paths)
    with pytest.raises(error, match=message.format(root=root)):
        load_image_folder(str(root), split)


def test_builtin_names_read_the_environment_when_they_load(tmp_path, monkeypatch):
    make_tree(tmp_path, "d/imagenet/train/a/1.jpg", "e/imagenet/train/b/1.jpg")
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder, classes in (("~/d", ["a"]), (str(tmp_path / "e"), ["b"])):
        monkeypatch.setenv("DETECTRON2_DATASETS", folder)
        assert len(DatasetCatalog.get("imagenet_train")) == 1
        assert MetadataCatalog.get("imagenet_train").classes == classes


def test_builtin_root_without_the_environment_is_named_as_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/datasets/imagenet does not exist"):
        DatasetCatalog.get("imagenet_val")


def test_data_root_is_registered_by_its_folders_and_again_without_harm(tmp_path, monkeypatch):
    make_tree(tmp_path, "data/train/a/1.jpg", "data/val/a/1.jpg")
    monkeypatch.chdir(tmp_path)
    names = register_data_root("data")
    assert register_data_root(str(tmp_path / "data")) == names
    assert names == (f"{tmp_path}/data/train", f"{tmp_path}/data/val")
    assert [load_registered(name)[1] for name in names] == [["a"], ["a"]]


def test_one_folder_by_two_spellings_is_one_registration(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for root in ("~/data", str(tmp_path / "data")):
        register_image_folder("image_folder_test_spelling", root)
    assert DatasetCatalog.list().count("image_folder_test_spelling") == 1


def test_a_name_cannot_be_registered_for_another_folder(tmp_path):
    register_image_folder("image_folder_test_name", str(tmp_path / "a"), "train")
    with pytest.raises(ValueError, match="already registered for .*/a.* not for .*/b"):
        register_image_folder("image_folder_test_name", str(tmp_path / "b"), "train")


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="'imagenet_trian' is not registered; .*imagenet_train"):
        load_registered("imagenet_trian")


def test_joined_data_sets_must_have_the_same_classes(tmp_path):
    make_tree(tmp_path, "1/train/a/1.jpg", "2/train/b/1.jpg")
    names = [register_data_root(str(tmp_path / n))[0] for n in ("1", "2")]
    with pytest.raises(ValueError, match="different classes"):
        load_registered(names)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK"])
def test_images_of_other_modes_become_rgb(mode, tmp_path):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new("RGB", (4, 3), (255, 255, 255)).convert(mode).save(path)
    image = read_image(str(path))
    assert image.mode == "RGB" and np.asarray(image).min() == 255


def test_sixteen_bit_image_is_refused_instead_of_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=f"{tmp_path}/x.png has more than 8 bits"):
        read_image(str(tmp_path / "x.png"))


@pytest.mark.parametrize("content", [b"", b"text", "half"])
def test_unreadable_image_is_named(content, tmp_path):
    path = tmp_path / "x.jpg"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:700] if content == "half" else content)
    with pytest.raises(ValueError, match=f"Image {path} cannot be read .*replace or remove"):
        read_image(str(path))


def test_image_that_is_gone_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"Image {tmp_path}/x.jpg does not exist"):
        read_image(str(tmp_path / "x.jpg"))
