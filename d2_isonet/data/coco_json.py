"""Reads a COCO json, and validates its form and single values."""

import contextlib
import functools
import logging
import math
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from pycocotools import coco

from d2_isonet.utils.files import read_json, why_not_regular
from d2_isonet.utils.messages import MissingFileError, UserError, shortened

from .other_formats import beginning_of, other_format, other_json, to_utf8, what_folder

# detectron2 reads the file by this module, which knows neither a byte order mark nor its encoding.
coco.open = functools.partial(open, encoding="utf-8-sig")
_NEEDED = "it needs images, annotations and categories"
_MOST_BYTES = 1 << 33
logger = logging.getLogger(__name__)


def read_annotations(json_file: str) -> dict:
    """The content of a COCO annotation file: a dict with lists of dicts.

    "annotations" may be missing, as in the files of test sets.

    Raises:
        FileNotFoundError: the file does not exist.
        UserError: it is not json, does not have COCO's form, or lacks categories with id and name.
    """
    path = os.path.abspath(json_file)
    if not os.path.exists(json_file):
        raise MissingFileError(f"annotations: there is no file {path}")
    other = what_folder(path) if os.path.isdir(path) else None
    if not why_not_regular(path, _MOST_BYTES):
        other = other_format(path, beginning_of(path))
    content: Any
    content, problem = (None, other) if other else _parsed(path)
    if problem:
        raise UserError(f"{path} is no COCO annotation file: {problem[0]}", problem[1])
    return content


def _parsed(path: str) -> tuple[Any, tuple[str, str] | None]:
    """The content of a file, or what is wrong with it and the remedy."""
    try:
        content = read_json(path, _MOST_BYTES)
    except UserError:
        raise
    except UnicodeDecodeError as error:
        remedy = f"if it has an older encoding: {to_utf8('WINDOWS-1252', path)}"
        return None, (f"it is no text in UTF-8 ({error})", remedy)
    except ValueError as error:
        return None, (f"it is no json ({error})", _NEEDED)
    reason = _why_not_coco(content)
    return content, (other_json(path, content) or (reason, _NEEDED)) if reason else None


def _why_not_coco(content: object) -> str:
    """What is wrong with the form of the content; "" if it is COCO's."""
    if not isinstance(content, dict):
        return f"it is a {type(content).__name__}, not an object"
    for key in ("images", "annotations", "categories"):
        part = content.get(key, [] if key == "annotations" else None)
        if part is None:
            return f"it has no {key}"
        if not isinstance(part, list) or not all(isinstance(entry, dict) for entry in part):
            return f"{key} is no list of objects"
    categories = content["categories"]
    ids = [category.get("id") for category in categories]
    bad = [c for c in categories if not is_id(c.get("id")) or not isinstance(c.get("name"), str)]
    if not categories:
        return "it has an empty list of categories"
    if bad:
        return f"{len(bad)} categories have no id or no name, such as {repr(bad[0])[:80]}"
    if len(set(ids)) < len(ids):
        return f"categories share an id: {shortened([repr(i) for i in repeated(ids)])}"
    return "" if can_be_sorted(ids) else "some ids of categories are numbers, others text"


def is_id(value: object) -> bool:
    """Whether a value can be an id: a number (not nan) or a text."""
    return isinstance(value, (int, float, str)) and not isinstance(value, bool) and value == value


def can_be_sorted(ids: Iterable) -> bool:
    """Whether ids are all numbers or all texts."""
    return len({isinstance(value, str) for value in ids}) <= 1


def repeated(ids: Iterable[Hashable]) -> list:
    """The ids that occur more than once."""
    return [value for value, count in Counter(ids).items() if count > 1]


def class_names(content: dict) -> list[str]:
    """Category names in the order of their ids, which is detectron2's."""
    return [c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])]


def fill_in(annotation: dict) -> None:
    """Add missing keys in place: iscrowd is 0, and area is that of the box."""
    annotation.setdefault("iscrowd", 0)
    annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])


def is_number(value: object) -> bool:
    """Whether a value is a number that a float can hold, neither nan nor infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def whole_sizes(image: dict) -> dict[str, int]:
    """The width and height of an image that are floats such as 120.0, as whole numbers."""
    sizes = {key: image.get(key) for key in ("width", "height")}
    return {k: int(v) for k, v in sizes.items() if isinstance(v, float) and v.is_integer()}


def is_box(value: Any) -> bool:
    """Whether a value is four finite numbers."""
    try:
        return (
            not isinstance(value, (str, dict))
            and len(value) == 4
            and all(map(math.isfinite, value))
        )
    except (TypeError, OverflowError):
        return False


def is_keypoints(value: object) -> bool:
    """Whether a value is x, y, visibility of each keypoint, in one list of finite numbers."""
    return isinstance(value, list) and len(value) % 3 == 0 and all(map(is_number, value))


class _COCO(coco.COCO):
    """COCO's annotations without malformed keypoints."""

    def createIndex(self) -> None:  # noqa: N802
        annotations = self.dataset.get("annotations", [])
        bad = [a for a in annotations if not is_keypoints(a.get("keypoints", []))]
        for annotation in bad:
            del annotation["keypoints"]
        if bad:
            logger.warning(
                f"The keypoints of {len(bad)} of {len(annotations)} annotations are left out: they "
                "are no list of x, y, visibility, ..."
            )
        super().createIndex()


@contextlib.contextmanager
def malformed_keypoints_left_out() -> Iterator[None]:
    """Within it, detectron2 loads COCO files without the keypoints on which it would fail."""
    original, coco.COCO = coco.COCO, _COCO
    try:
        yield
    finally:
        coco.COCO = original


def is_annotation_id(value: object) -> bool:
    """Whether COCO's code can tell a match with this annotation from none."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def renumber_unusable_ids(annotations: Sequence[dict]) -> bool:
    """Number the annotations from 1, in place, if an id is unusable or occurs twice; whether so."""
    ids = {a["id"] for a in annotations if is_annotation_id(a.get("id"))}
    if len(ids) == len(annotations):
        return False
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    return True


def boxes_of(annotations: Iterable[dict]) -> np.ndarray:
    """The boxes (N, 4) of annotations; nan for what is none."""
    boxes = [a["bbox"] if is_box(a.get("bbox")) else [math.nan] * 4 for a in annotations]
    return np.array(boxes, float).reshape(-1, 4)


def areas_of(annotations: Iterable[dict]) -> np.ndarray:
    """The stated areas (N,) of annotations; nan for what is none."""
    return np.array([a["area"] if is_number(a.get("area")) else math.nan for a in annotations])
