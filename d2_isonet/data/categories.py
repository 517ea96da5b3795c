"""The classes of a detector or classifier: names and ids, recorded in its weights."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from d2_isonet.utils.messages import UserError, shortened

from .coco_json import class_names, is_id, read_annotations

logger = logging.getLogger(__name__)


class Categories(NamedTuple):
    """The meaning of a detector's `pred_classes`.

    Args:
        names: by class index.
        ids: of the same classes in the data set's json, as COCO results name them.
        source: origin of the names; "" if there is none and the classes are numbered.
    """

    names: list[str]
    ids: list[int | str]
    source: str


def number_of_classes(cfg: CfgNode) -> int:
    """Number of classes of the detector's head, without background."""
    return cfg.MODEL[head_section(cfg)].NUM_CLASSES


def head_section(cfg: CfgNode) -> str:
    """The section of cfg.MODEL that describes the head that classifies."""
    sections = {"RetinaNet": "RETINANET", "ImageClassifier": "CLASSIFIER"}
    return sections.get(cfg.MODEL.META_ARCHITECTURE, "ROI_HEADS")


def categories_record(cfg: CfgNode) -> dict:
    """The part of a checkpoint's meta record that names the classes of its training data.

    It is empty if they are unknown or do not fit the head.
    """
    return record_of_data_sets(cfg.DATASETS.TRAIN, number_of_classes(cfg))


def record_of_data_sets(names: Sequence[str], number: int | None = None) -> dict:
    """`categories_record` of training sets, for a head of `number` classes; None: any head."""
    categories = _of_data_set(names[0]) if names else None
    if categories is None or number not in (None, len(categories.names)):
        return {}
    return {"categories": {"names": categories.names, "ids": categories.ids}}


def categories_of(cfg: CfgNode, record: Mapping | None, path: str) -> Categories:
    """The categories of a detector: from its weights, else from cfg's data sets, else numbers.

    Args:
        record: the meta record of the weights (see `record_of`); None if they have none.
        path: of the weights.
    """
    number = number_of_classes(cfg)
    recorded = recorded_categories(record or {}, path)
    if recorded and len(recorded.names) == number:
        _warn_of_others(cfg, recorded)
        return recorded
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        categories = _of_data_set(name)
        if categories and len(categories.names) == number:
            return categories
    numbers: list[int | str] = [*range(1, number + 1)]
    return Categories([f"class {i}" for i in numbers], numbers, "")


def _warn_of_others(cfg: CfgNode, recorded: Categories) -> None:
    sets = classes_of_data_sets((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST), len(recorded.names))
    others = [f"{name} has {shortened(x)}" for name, x in sets.items() if x != recorded.names]
    if others:
        text = f"The classes are named by {recorded.source}: {shortened(recorded.names)}. In the"
        logger.warning(f"{text} config, data set {'; '.join(others)}")


def check_named_classes(option: str, names: Sequence[str], found: Categories, path: str) -> None:
    """Raise UserError if `option` gives classes other names than their weights do.

    Args:
        names: by class index, of the option's file.
        found: the classes of the network; only the weights' names are certain.
        path: of the weights.
    """
    remedy = "give a file of the dataset that the network was trained on"
    if len(names) != len(found.names):
        what = f"{option} has {len(names)} names, the network {len(found.names)} classes"
        raise UserError(what, remedy)
    differing = [(a, b) for a, b in zip(found.names, names, strict=True) if a != b]
    if found.source == path and differing:
        what = f"{option} has {differing[0][1]!r} in place of {differing[0][0]!r} in {path}"
        raise UserError(f"{what}, and {len(differing) - 1} more differences", remedy)


def categories_of_json(content: dict, path: str) -> Categories:
    """The categories of a COCO json, in detectron2's order.

    Args:
        content: returned by `read_annotations(path)`.
    """
    ids = sorted(category["id"] for category in content["categories"])
    return Categories(class_names(content), ids, path)


def classes_of_data_sets(names: Iterable[str], number: int | None = None) -> dict[str, list[str]]:
    """The class names of each registered data set, by its name and file, for a message.

    Only sets that name their classes, and as many as the head has: `number`, None for any.
    """
    found = {}
    for name in names:
        categories = _of_data_set(name)
        if categories and number in (None, len(categories.names)):
            file = MetadataCatalog.get(name).get("json_file")
            found[f"{name!r} ({file})" if file else repr(name)] = categories.names
    return found


def _of_data_set(name: str) -> Categories | None:
    """The categories of a registered data set; None if it has no names."""
    if name not in MetadataCatalog.list():
        return None
    metadata, source = MetadataCatalog.get(name), f"data set {name!r}"
    names = list(metadata.get("thing_classes") or metadata.get("classes") or [])
    if not names:  # detectron2 registers a json without its names, until it is loaded
        return _of_json(metadata.get("json_file") or "", source)
    to_index = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    ids = sorted(to_index, key=to_index.__getitem__)
    if len(ids) != len(names):  # data sets that Python code registers have no ids
        ids = list(range(1, len(names) + 1))
    return Categories(names, ids, source)


def _of_json(json_file: str, source: str) -> Categories | None:
    try:
        return categories_of_json(read_annotations(json_file), source)
    except UserError:  # the check of the data sets tells why
        return None


def recorded_categories(record: Mapping, path: str) -> Categories | None:
    """The categories in a record of weights; None if it has none, or another program's."""
    section = record.get("categories")
    if not isinstance(section, Mapping):
        return None
    names, ids = section.get("names"), section.get("ids")
    if not (isinstance(names, list) and isinstance(ids, list) and len(names) == len(ids)):
        return None
    if not all(isinstance(name, str) for name in names) or not all(map(is_id, ids)):
        return None
    return Categories(names, ids, path)
