"""detectron2 data sets of classified images, by name: ImageNet or a tree of its shape."""

import os
from collections.abc import Iterable

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from d2_isonet.data.shards.index import (
    ShardedImages,
    is_shard_root,
    is_url,
    load_shard_index,
    url_of,
)
from d2_isonet.utils.messages import UserError, nearest

from .coco_json import class_names, read_annotations
from .image_folder import load_image_folder


def _builtin_root() -> str:
    return os.path.join(os.getenv("DETECTRON2_DATASETS", "datasets"), "imagenet")


def _require_same(name: str, kind: str, place: tuple) -> None:
    registered = MetadataCatalog.get(name).get(kind)
    if registered != place:
        raise UserError(
            f"Data set {name!r} is already registered for {registered or 'other data'}, not "
            f"for {place}",
            "choose another name",
        )


def register_image_folder(name: str, root: str | None = None, split: str = "train") -> None:
    """Register ROOT/SPLIT/<class>/* as detectron2 data set `name`; the disk is read when it loads.

    Loading sets MetadataCatalog.get(name).classes. The same registration again does nothing.

    Args:
        root: None means $DETECTRON2_DATASETS/imagenet, looked up when the data set loads.

    Raises:
        UserError: `name` is registered for something else.
    """
    place = (root and os.path.abspath(os.path.expanduser(root)), split)
    if name in DatasetCatalog.list():
        _require_same(name, "image_folder", place)
        return

    def load() -> list[dict]:
        dicts, classes = load_image_folder(place[0] or _builtin_root(), split)
        # Not setattr, which refuses a new value: the tree may have changed since the last load.
        vars(MetadataCatalog.get(name))["classes"] = classes
        return dicts

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(image_folder=place, evaluator_type="classification")


def register_image_shards(name: str, root: str, split: str = "train") -> None:
    """Register a split of the shards at `root`, a folder or URL; the index is read when it loads.

    It loads as ShardedImages, not as dicts. The same registration again does nothing.

    Raises:
        UserError: `name` is registered for something else.
    """
    if name in DatasetCatalog.list():
        _require_same(name, "image_shards", (root, split))
        return

    def load() -> ShardedImages:
        splits = load_shard_index(root)
        if split not in splits:
            raise UserError(
                f"The shards of {root} have no split {split!r}, only {', '.join(splits)}",
                "make them from a folder that has it (tools/make_shards.py)",
            )
        vars(MetadataCatalog.get(name))["classes"] = list(splits[split].classes)
        return splits[split]

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(image_shards=(root, split), evaluator_type="classification")


def register_data_root(root: str | os.PathLike) -> tuple[str, str]:
    """Register ROOT/train and ROOT/val (`--data-root ROOT`); their names are the folders' paths.

    ROOT is a folder of folders, or a folder or URL of shards.

    Raises:
        FileNotFoundError: `root` has shards and no index of them.
    """
    root = os.fspath(root)
    root = root if is_url(root) else os.path.abspath(os.path.expanduser(root))
    register = register_image_shards if is_shard_root(root) else register_image_folder
    names = url_of(root, "train"), url_of(root, "val")
    for name, split in zip(names, ("train", "val"), strict=True):
        register(name, root, split)
    return names


def load_registered(
    names: str | Iterable[str],
) -> tuple[list[dict] | ShardedImages, list[str]]:
    """The dicts of one or several registered data sets, joined, and their common class names.

    A data set in shards has no dicts: it is one ShardedImages, and is not joined.

    Raises:
        UserError: a name is not registered, holds no classified images, or the classes differ.
    """
    names = [names] if isinstance(names, str) else list(names)
    dicts: list[dict] = []
    classes: list[str] | None = None
    for name in names:
        if name not in DatasetCatalog.list():
            raise UserError(
                f"Data set {name!r} is not registered{nearest(name, DatasetCatalog.list(), '.')} "
                "Use imagenet_train and imagenet_val, or give --data-root"
            )
        loaded = DatasetCatalog.get(name)
        own = MetadataCatalog.get(name).get("classes")
        if own is None:
            raise UserError(
                f"Data set {name!r} has no metadata `classes`: it is no classification data set",
                "register it with register_image_folder",
            )
        if isinstance(loaded, ShardedImages):
            if len(names) > 1:
                raise UserError(f"{name} is a set of shards, of which one is used at a time")
            return loaded, own
        if classes is not None and own != classes:
            raise UserError(f"Data sets {', '.join(names)} have different classes", "use one only")
        dicts, classes = dicts + loaded, own
    if not dicts or classes is None:
        raise UserError(
            "No data set is named",
            "use imagenet_train and imagenet_val, or --data-root",
        )
    return dicts, classes


for _name, _split in (("imagenet_train", "train"), ("imagenet_val", "val")):
    if _name not in DatasetCatalog.list():  # another project's data set of that name stays
        register_image_folder(_name, split=_split)


def register_coco_files(name: str, json_file: str, image_root: str) -> list[str]:
    """Register a COCO-format data set, again if need be, and return its class names in order.

    Its annotations and images are checked by `check_datasets`.

    Raises:
        FileNotFoundError, UserError: what `read_annotations` raises.
    """
    classes = class_names(read_annotations(json_file))
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_coco_instances(name, {}, json_file, image_root)
    MetadataCatalog.get(name).thing_classes = classes
    return classes


def use_own_data(cfg: CfgNode, args) -> None:
    """Register --train-json ... --val-images and set cfg.DATASETS and the head's classes by them.

    Raises:
        UserError: a json without its image folder or the other way round, nothing to train on,
            or training and validation categories that differ.
    """
    names, classes = {}, {}
    for key, split in (("TRAIN", "train"), ("TEST", "val")):
        json_file = getattr(args, f"{split}_json")
        image_root = getattr(args, f"{split}_images")
        if bool(json_file) != bool(image_root):
            raise UserError(f"--{split}-json and --{split}-images go together", "one is missing")
        if json_file:
            names[key] = f"own_{split}"
            classes[key] = register_coco_files(names[key], json_file, image_root)
    if not names:
        return
    if "TRAIN" not in names and not args.eval_only:
        raise UserError("--val-json without --train-json: add it, or --eval-only")
    if len(classes) == 2 and classes["TRAIN"] != classes["TEST"]:
        raise UserError(
            f"--train-json has the categories {classes['TRAIN']}, --val-json {classes['TEST']}: "
            "they must be the same, in the same order of ids"
        )
    cfg.DATASETS.TRAIN = (names.get("TRAIN", names.get("TEST")),)
    cfg.DATASETS.TEST = (names["TEST"],) if "TEST" in names else ()
    number = len(next(iter(classes.values())))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = number
    cfg.MODEL.RETINANET.NUM_CLASSES = number
