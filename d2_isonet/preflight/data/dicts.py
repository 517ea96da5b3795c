"""Checks data sets that Python code registers, in detectron2's standard format."""

from collections.abc import Iterator, Sequence
from numbers import Integral

import numpy as np
from detectron2.structures import BoxMode

from d2_isonet.data.coco_json import repeated
from d2_isonet.preflight.findings import Finding, Rule, broken_rules, found, found_values

from .objects import CheckedObjects, Demands, LabelledObject, object_findings

_FORMAT = 'see detectron2\'s tutorial on datasets, "Standard Dataset Dicts"'


def dict_findings(dicts: object, classes: Sequence[str], demands: Demands) -> CheckedObjects:
    """What is wrong with the dicts of a registered data set.

    Args:
        classes: names by class index.
    """
    where, trained = demands.where, demands.trained
    if not isinstance(dicts, (list, tuple)):
        what = f"it is a {type(dicts).__name__}, whose images and objects are not checked"
        return CheckedObjects([Finding("fact", where, what)])
    if not dicts or not all(isinstance(entry, dict) for entry in dicts):
        what = f"it is empty or no list of dicts: {repr(dicts)[:80]}"
        return CheckedObjects([Finding("error", where, what, _FORMAT)])
    annotations = [annotation for d in dicts for annotation in d.get("annotations") or ()]
    checked = object_findings(_objects(dicts), classes, demands, drops_polygons=False)
    twice = [] if trained else repeated(str(d.get("image_id")) for d in dicts)
    summary = f"{len(dicts)} images, {len(annotations)} annotations, {len(classes)} classes"
    findings = [
        Finding("fact", where, summary),
        *broken_rules(where, "images", dicts, _name, _TRAINED if trained else _EVALUATED),
        *found("error", where, twice, "image_ids given twice", "make them unique"),
        *_class_indices(annotations, where, len(classes)),
        *checked.findings,
    ]
    return checked._replace(findings=findings)


def _without(key: str) -> Rule:
    return Rule("error", lambda entry: entry.get(key) is None, f"without {key}", _FORMAT)


# Evaluation converts the set to COCO's json; training measures the files.
_TRAINED = [_without(key) for key in ("file_name", "annotations")]
_EVALUATED = [_without(key) for key in ("file_name", "image_id", "width", "height")]


def _name(entry: dict, place: int) -> str:
    return str(entry.get("file_name") or f"dict {place}")


def _class_indices(annotations: Sequence[dict], where: str, number: int) -> list[Finding]:
    bad = [a.get("category_id") for a in annotations if not _is_index(a, number)]
    what = f"of {len(annotations)} annotations whose category_id is not within 0..{number - 1}"
    remedy = "it is a class index, counted from 0 without gaps: map the ids of the data to it"
    return found_values(where, bad, what, remedy)


def _is_index(annotation: dict, number: int) -> bool:
    value = annotation.get("category_id")
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 <= int(value) < number


def _objects(dicts: Sequence[dict]) -> Iterator[LabelledObject]:
    for i, d in enumerate(dicts):
        size = (d["width"], d["height"]) if d.get("width") and d.get("height") else None
        for j, annotation in enumerate(d.get("annotations") or ()):
            category = annotation.get("category_id")
            yield LabelledObject(
                f"{_name(d, i)} object {j}",
                int(category) if isinstance(category, Integral) else -1,
                _box(annotation),
                annotation.get("segmentation"),
                annotation.get("iscrowd", 0) != 0,
                size if annotation.get("bbox_mode") != BoxMode.XYWHA_ABS else None,
                i,
                None,
                _flat(annotation.get("keypoints", ())),
            )


def _flat(keypoints: object) -> object:
    """The numbers of keypoints of any shape that detectron2 reads; else the value itself."""
    try:
        return np.asarray(keypoints, float).ravel().tolist() if keypoints is not None else None
    except (TypeError, ValueError, OverflowError):
        return keypoints


def _box(annotation: dict) -> object:
    """x, y, width, height of a box in any mode; a text of its value if it is no box."""
    box, mode = annotation.get("bbox"), annotation.get("bbox_mode")
    if box is None:
        return None
    try:
        box = [float(x) for x in np.asarray(box).ravel()]
        if mode == BoxMode.XYWHA_ABS and len(box) == 5:
            return [box[0] - box[2] / 2, box[1] - box[3] / 2, *box[2:4]]
        return list(BoxMode.convert(box, BoxMode(mode), BoxMode.XYWH_ABS))
    except (TypeError, ValueError, AssertionError, NotImplementedError):
        return f"{box} of bbox_mode {mode}"
