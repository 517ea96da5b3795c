"""Lists and validates folder trees of classified images, ROOT/{train,val}/<class>/*."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from d2_isonet.utils.messages import MissingFileError, UserError, shortened

logger = logging.getLogger(__name__)


def _visible_folders(folder: str) -> list[str]:
    """Sorted names of the folders in `folder`, including links, without dot folders."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _require_split(root: str, split: str) -> None:
    if not os.path.isdir(root):
        problem = "is not a folder" if os.path.exists(root) else "does not exist"
    elif not os.path.isdir(os.path.join(root, split)):
        problem = f"has no {split}/ (folders there: {shortened(_visible_folders(root)) or 'none'})"
    else:
        return
    raise MissingFileError(
        f"Image folder {root} {problem}; expected tree: {root}/{{train,val}}/<class>/<image>; set "
        "DETECTRON2_DATASETS to the folder that holds imagenet/, or give --data-root"
    )


def _raise(error: OSError) -> None:
    raise error


def walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """The visible folders in `folder`, at any depth and itself, each with the names of its files.

    Links are followed, but each real folder comes once, and none that contains `folder`.
    """
    real = os.path.realpath(folder)
    listed = {real, *map(str, Path(real).parents)}
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        yield parent, [name for name in files if not name.startswith(".")]
        visible = [os.path.join(parent, name) for name in folders if not name.startswith(".")]
        folders.clear()
        for path in sorted(visible, key=lambda path: (os.path.islink(path), path)):
            if (target := os.path.realpath(path)) not in listed:
                listed.add(target)
                folders.append(os.path.basename(path))


def list_images(
    folder: str, suffixes: tuple[str, ...] = IMG_EXTENSIONS
) -> tuple[list[str], list[str]]:
    """Sorted paths of the images that `walk` finds in `folder`, and of its other files.

    Hidden files, such as ._x.JPEG and .DS_Store in archives of macOS, are left out.

    Args:
        suffixes: of the files that count as images, in lower case.
    """
    images: list[str] = []
    others: list[str] = []
    for parent, files in walk(folder):
        for name in files:
            is_image = name.lower().endswith(suffixes)
            (images if is_image else others).append(os.path.join(parent, name))
    return sorted(images), sorted(others)


def _class_names(root: str, split: str) -> list[str]:
    """Class names in index order: the folders of train/, or of `split` if there is no train/."""
    train = os.path.join(root, "train")
    if os.path.isdir(train):
        return _visible_folders(train)
    logger.warning(f"No {train}: class indices of {root} come from the folders of {split}/ alone")
    return _visible_folders(os.path.join(root, split))


def _check_classes(root: str, split: str, folders: list[str], classes: list[str]) -> None:
    folder = os.path.join(root, split)
    if not folders:
        images = [name for name in os.listdir(folder) if name.lower().endswith(IMG_EXTENSIONS)]
        lying = f"; {len(images)} images lie directly in it" if images else ""
        raise UserError(
            f"{folder} has no class folders{lying}",
            f"put the images of each class into a folder of its own, {folder}/<class>/<image>",
        )
    unknown = sorted(set(folders) - set(classes))
    if unknown:
        raise UserError(
            f"{folder} has {len(unknown)} class folder(s) that {root}/train does not have: "
            f"{shortened(unknown)}",
            "class indices come from train/, so add or rename them there, or remove them from "
            f"{split}/",
        )


def _check_images(folder: str, images: dict[str, list[str]], others: list[str]) -> None:
    suffixes = " ".join(IMG_EXTENSIONS)
    empty = [name for name, paths in images.items() if not paths]
    if len(empty) == len(images):
        what = f"{folder} has {len(images)} class folder(s) and no image in any of them"
        raise UserError(f"{what} ({len(others)} other files)", f"images end in {suffixes}")
    if empty:
        what = f"{folder} has {len(empty)} class folder(s) without an image: {shortened(empty)}"
        raise UserError(what, f"add images ({suffixes}) or remove the folder(s)")
    if others:
        what = f"{len(others)} files in {folder} have no suffix of an image and are skipped"
        logger.warning(f"{what}: {shortened(others)}")


def load_image_folder(root: str, split: str) -> tuple[list[dict], list[str]]:
    """The images of ROOT/SPLIT/<class>/ as dicts, and the class names in index order.

    In every split, the class index is the position among the sorted folder names of ROOT/train, so
    that a val/ with some of the classes keeps the network's numbering.

    Args:
        root: folder with train/ and val/; `~` is expanded.
        split: "train", "val" or another folder of `root`.

    Returns:
        Dicts {"file_name": absolute path, "image_id": int, "label": int}, sorted by class and
        path; class names.

    Raises:
        FileNotFoundError: `root` or `split` is missing.
        UserError: a class folder is empty or missing in train/, or there is none.
    """
    root = os.path.abspath(os.path.expanduser(root))
    _require_split(root, split)
    folder = os.path.join(root, split)
    folders, classes = _visible_folders(folder), _class_names(root, split)
    _check_classes(root, split, folders, classes)
    listed = {name: list_images(os.path.join(folder, name)) for name in folders}
    images = {name: paths for name, (paths, _) in listed.items()}
    _check_images(folder, images, [path for _, others in listed.values() for path in others])
    label_of = {name: index for index, name in enumerate(classes)}
    labelled = [(path, label_of[name]) for name in folders for path in images[name]]
    dicts = [{"file_name": path, "image_id": i, "label": x} for i, (path, x) in enumerate(labelled)]
    return dicts, classes
