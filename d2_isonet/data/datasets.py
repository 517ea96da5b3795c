"""Registers data sets by name: a user's COCO files, folders of classified images, and shards."""

import os
from collections.abc import Callable, Iterable

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from d2_isonet.utils.messages import UserError, nearest

from .categories import categories_of_json
from .coco_json import malformed_keypoints_left_out, read_annotations
from .image_folder import load_image_folder
from .shards.index import ShardedImages, is_shard_root, is_url, load_shard_index, url_of

Images = list[dict] | ShardedImages  # a loaded data set of classified images


def register_image_folder(name: str, root: str | None = None, split: str = "train") -> None:
    """Register ROOT/SPLIT/<class>/* as detectron2 data set `name`; the disk is read when it loads.

    Args:
        root: None means $DETECTRON2_DATASETS/imagenet, looked up when the data set loads.

    Raises:
        UserError: `name` is registered for something else.
    """
    place = (root and os.path.abspath(os.path.expanduser(root)), split)

    def load() -> tuple[list[dict], list[str]]:
        builtin = os.path.join(os.getenv("DETECTRON2_DATASETS", "datasets"), "imagenet")
        return load_image_folder(place[0] or builtin, split)

    _register_classified(name, "image_folder", place, load)


def register_image_shards(name: str, root: str, split: str = "train") -> None:
    """Register a split of the shards at `root`, a folder or URL; the index is read when it loads.

    It loads as ShardedImages, not as dicts.

    Raises:
        UserError: `name` is registered for something else.
    """

    def load() -> tuple[ShardedImages, list[str]]:
        splits = load_shard_index(root)
        if split not in splits:
            what = f"The shards of {root} have no split {split!r}, only {', '.join(splits)}"
            raise UserError(what, "make them from a folder that has it (d2-isonet make-shards)")
        return splits[split], list(splits[split].classes)

    _register_classified(name, "image_shards", (root, split), load)


def _register_classified(
    name: str, kind: str, place: tuple, load: Callable[[], tuple[Images, list[str]]]
) -> None:
    """Register what `load` returns; loading also sets MetadataCatalog.get(name).classes.

    The same registration again does nothing.
    """
    if name in DatasetCatalog.list():
        known = MetadataCatalog.get(name).get(kind)
        if known != place:
            what = f"Data set {name!r} is already registered for {known or 'other data'}, not for "
            raise UserError(f"{what}{place}", "choose another name")
        return

    def load_images() -> Images:
        images, classes = load()
        # Not setattr, which refuses a new value: the files may have changed since the last load.
        vars(MetadataCatalog.get(name))["classes"] = classes
        return images

    DatasetCatalog.register(name, load_images)
    MetadataCatalog.get(name).set(evaluator_type="classification", **{kind: place})


def register_data_root(root: str | os.PathLike) -> tuple[str, str]:
    """Register ROOT/train and ROOT/val (`--data-root ROOT`); their names are the folders' paths.

    ROOT is a folder of folders, or a folder or URL of shards.

    Raises:
        FileNotFoundError: `root` has shards but no index of them.
    """
    root = os.fspath(root)
    root = root if is_url(root) else os.path.abspath(os.path.expanduser(root))
    register = register_image_shards if is_shard_root(root) else register_image_folder
    names = url_of(root, "train"), url_of(root, "val")
    for name, split in zip(names, ("train", "val"), strict=True):
        register(name, root, split)
    return names


def load_registered(names: str | Iterable[str]) -> tuple[Images, list[str]]:
    """The dicts of one or several registered data sets, joined, and their common class names.

    A data set in shards loads as one ShardedImages, which cannot be joined.

    Raises:
        UserError: a name is not registered, holds no classified images, or the classes differ.
    """
    names = [names] if isinstance(names, str) else list(names)
    dicts: list[dict] = []
    classes: list[str] = []
    for name in names:
        images, own = _load(name)
        if isinstance(images, ShardedImages):
            if len(names) > 1:
                raise UserError(f"{name} is a set of shards", "name it alone")
            return images, own
        if dicts and own != classes:
            raise UserError(f"Data sets {', '.join(names)} have different classes", "use one only")
        dicts, classes = dicts + images, own
    if not dicts:
        remedy = "use imagenet_train and imagenet_val, or --data-root"
        raise UserError("No data set is named", remedy)
    return dicts, classes


def _load(name: str) -> tuple[Images, list[str]]:
    _register_by_path(name)
    if name not in DatasetCatalog.list():
        raise UserError(
            f"Data set {name!r} is not registered{nearest(name, DatasetCatalog.list(), '.')} "
            "Use imagenet_train and imagenet_val, or give --data-root"
        )
    images = DatasetCatalog.get(name)
    classes = MetadataCatalog.get(name).get("classes")
    if classes is None:
        what = f"Data set {name!r} has no metadata `classes`: it is no classification data set"
        raise UserError(what, "register it with register_image_folder")
    return images, classes


for _name, _split in (("imagenet_train", "train"), ("imagenet_val", "val")):
    if _name not in DatasetCatalog.list():  # keep another project's data set of that name
        register_image_folder(_name, split=_split)


def register_coco_files(name: str, json_file: str, image_root: str) -> list[str]:
    """Register a COCO-format data set and return its class names in order.

    A data set of that name is replaced. `check_datasets` validates annotations and images.

    Raises:
        FileNotFoundError, UserError: what `read_annotations` raises.
    """
    categories = categories_of_json(read_annotations(json_file), json_file)
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)

    def load() -> list[dict]:
        with malformed_keypoints_left_out():
            return load_coco_json(json_file, image_root, name)

    DatasetCatalog.register(name, load)
    metadata = MetadataCatalog.get(name)
    metadata.set(json_file=json_file, image_root=image_root, evaluator_type="coco")
    metadata.thing_classes = categories.names
    to_index = {category_id: index for index, category_id in enumerate(categories.ids)}
    metadata.thing_dataset_id_to_contiguous_id = to_index
    return categories.names


OWN_SETS = {  # the flags that give a set, by its name; cfg.DATASETS has its paths by own_key
    f"own_{split}": (f"--{split}-annotations", f"--{split}-images") for split in ("train", "val")
}


def own_key(name: str) -> str:
    """The key of cfg.DATASETS with the files of a set of OWN_SETS."""
    return name.upper()


def use_own_data(cfg: CfgNode, args) -> None:
    """Put --train-annotations ... --val-images into cfg.DATASETS, and register the own data there.

    If they are given, they also set DATASETS.TRAIN and TEST and the classes of the head.

    Raises:
        UserError: a json has no image folder or the other way round, or there is nothing to train
            on.
    """
    given = [name for name in OWN_SETS if _take_flags(cfg, args, name)]
    if given == ["own_val"] and not (args.eval_only or cfg.DATASETS.OWN_TRAIN):
        raise UserError("--val-annotations without --train-annotations", "add it, or --eval-only")
    register_own_data(cfg, given)
    if given:
        train, val = ((name,) if cfg.DATASETS[own_key(name)] else () for name in OWN_SETS)
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = train or val, val
        number = len(MetadataCatalog.get(given[0]).thing_classes)
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = number


def _take_flags(cfg: CfgNode, args, name: str) -> bool:
    """Whether the flags of a set of OWN_SETS are given; then cfg.DATASETS gets their paths."""
    split = name.removeprefix("own_")
    pair = [getattr(args, f"{split}_{part}") for part in ("json", "images")]
    if bool(pair[0]) != bool(pair[1]):
        raise UserError(f"{' and '.join(OWN_SETS[name])} go together", "one is missing")
    if all(pair):
        cfg.DATASETS[own_key(name)] = tuple(pair)
    return all(pair)


def register_own_data(cfg: CfgNode, required: Iterable[str] = ()) -> None:
    """Register the own data that cfg names: DATASETS.OWN_TRAIN, OWN_VAL, folders of --data-root.

    The paths in `cfg` become absolute. A file that is missing is left out, unless its set is
    `required`: not every command needs it, and the check of the data sets tells where it was.

    Raises:
        FileNotFoundError, UserError: what `register_coco_files` raises, or a key has no two paths.
    """
    for name, key in ((name, own_key(name)) for name in OWN_SETS):
        pair = tuple(os.path.abspath(os.path.expanduser(str(x))) for x in cfg.DATASETS[key])
        if len(pair) not in (0, 2):
            what = f"DATASETS.{key} is {cfg.DATASETS[key]}"
            raise UserError(what, "give an annotation file and an image folder, or ()")
        if not cfg.is_frozen():
            cfg.DATASETS[key] = pair
        if pair and (name in required or os.path.isfile(pair[0])):
            register_coco_files(name, *pair)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        _register_by_path(name)


def _register_by_path(name: str) -> None:
    """Register a name that `register_data_root` gave in another run, if its folder is there."""
    root, _, split = name.rpartition("/")
    is_there = is_url(root) or os.path.isdir(root)
    if split in ("train", "val") and is_there and name not in DatasetCatalog.list():
        register_data_root(root)
