"""The classes of a detector: names and ids, recorded in its weights."""

from collections.abc import Mapping
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from .coco_json import class_names, is_id


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
    return "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "ROI_HEADS"


def categories_record(cfg: CfgNode) -> dict:
    """The part of a checkpoint's meta record that names the classes of its training data.

    It is empty if they are unknown or do not fit the head.
    """
    categories = _of_data_set(cfg.DATASETS.TRAIN[0]) if cfg.DATASETS.TRAIN else None
    if categories is None or len(categories.names) != number_of_classes(cfg):
        return {}
    return {"categories": {"names": categories.names, "ids": categories.ids}}


def categories_of(cfg: CfgNode, record: Mapping | None, path: str) -> Categories:
    """The categories of a detector: from its weights, else from cfg's data sets, else numbers.

    Args:
        record: the meta record of the weights (see `record_of`); None if they have none.
        path: of the weights.
    """
    number = number_of_classes(cfg)
    recorded = _of_record(record or {}, path)
    if recorded and len(recorded.names) == number:
        return recorded
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        categories = _of_data_set(name)
        if categories and len(categories.names) == number:
            return categories
    numbers: list[int | str] = [*range(1, number + 1)]
    return Categories([f"class {i}" for i in numbers], numbers, "")


def categories_of_json(content: dict, path: str) -> Categories:
    """The categories of a COCO json, in detectron2's order.

    Args:
        content: returned by `read_annotations(path)`.
    """
    ids = sorted(category["id"] for category in content["categories"])
    return Categories(class_names(content), ids, path)


def _of_data_set(name: str) -> Categories | None:
    """The categories of a registered data set; None if it has no names."""
    if name not in MetadataCatalog.list():
        return None
    metadata = MetadataCatalog.get(name)
    names = list(metadata.get("thing_classes") or [])
    if not names:
        return None
    to_index = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    ids = sorted(to_index, key=to_index.__getitem__)
    if len(ids) != len(names):  # data sets that Python code registers have no ids
        ids = list(range(1, len(names) + 1))
    return Categories(names, ids, f"data set {name!r}")


def _of_record(record: Mapping, path: str) -> Categories | None:
    """The categories of a weights file; None if it has none, or another program wrote them."""
    section = record.get("categories")
    if not isinstance(section, Mapping):
        return None
    names, ids = section.get("names"), section.get("ids")
    if not (isinstance(names, list) and isinstance(ids, list) and len(names) == len(ids)):
        return None
    if not all(isinstance(name, str) for name in names) or not all(map(is_id, ids)):
        return None
    return Categories(names, ids, path)
