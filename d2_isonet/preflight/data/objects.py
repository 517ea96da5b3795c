"""What is wrong with the labelled objects of a data set: their boxes, masks and classes."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from d2_isonet.data.coco_json import areas_of, boxes_of, is_box, is_keypoints
from d2_isonet.data.masks import Size, mask_problem, measured
from d2_isonet.preflight.findings import Finding, Severity, found

from .consistency import Objects, consistency_findings
from .density import Numbers, numbers_of

_POINT = 1.0  # pixels of rounding that a box may go beyond its image without a finding


def box_problem(box: Any, size: Size | None) -> str | None:
    """The name of what is wrong with a box (x, y, width, height), or None."""
    if box is None:
        return "none"
    if not is_box(box):
        return "malformed"
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return "empty"
    if size is None:
        return None
    if x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
        return "outside"
    beyond = max(-x, -y, x + width - size[0], y + height - size[1])
    return "beyond" if beyond > _POINT else None


class Demands(NamedTuple):
    """What a run needs of a data set.

    Args:
        where: the file or the name of the set, for its findings.
        masks: whether every object needs a mask.
        trained: whether the set is trained on; otherwise a set without objects is no error.
        keypoints: number that an object must have; 0 if keypoints are not learned.
    """

    where: str
    masks: bool = False
    trained: bool = True
    keypoints: int = 0


class LabelledObject(NamedTuple):
    """What the checks need of an object of any data set.

    Args:
        name: by which the user finds it.
        box: x, y, width, height in pixels; or any other value that the data set has; None for none.
        segmentation: polygons, RLE, or any other value; None for none.
        size: width and height of the image; None if they are unknown.
        image: that it is in.
        area: as it is stated, in pixels; or any other value.
        keypoints: x, y, visibility of each, or any other value.
    """

    name: str
    class_index: int
    box: object = None
    segmentation: object = None
    is_crowd: bool = False
    size: Size | None = None
    image: Hashable = None
    area: object = None
    keypoints: object = ()


class CheckedObjects(NamedTuple):
    """The findings on the objects of a set, whether any mask is RLE, and how many there are."""

    findings: list[Finding]
    has_rle: bool = False
    numbers: Numbers = Numbers()


class _Problem(NamedTuple):
    severity: Severity
    what: str  # follows "3 of 7 objects"
    remedy: str
    learnable: bool = False  # despite the problem


_XYXY = "correct or remove them; x1, y1, x2, y2 instead of x, y, width, height looks like this"
_THREE = "give them three points"
_PROBLEMS = {
    "box none": _Problem("error", "without bbox", "give each one, or take the object out"),
    "box malformed": _Problem(
        "error", "with a bbox that is not four finite numbers", "correct them or take them out"),
    "box empty": _Problem(
        "warning", "with a box of zero or negative width or height, which are not learned from",
        _XYXY),
    "box outside": _Problem(
        "warning", "with a box wholly outside of the image, which are not learned from", _XYXY),
    "box beyond": _Problem(
        "warning", "with a box that goes beyond the image and is cut off there", _XYXY, True),
    "mask none": _Problem(
        "error", "without segmentation", "MODEL.MASK_ON False, or a faster_*.yaml, does without"),
    "mask malformed": _Problem(
        "error", "with a segmentation that is neither polygons nor RLE",
        'give [[x1, y1, x2, y2, ...], ...] in pixels or {"counts": ..., "size": [h, w]}, whose '
        "counts add up to h times w"),
    "mask far": _Problem(
        "error", "with polygons that go beyond the image by 10 times its size or more",
        "give their points in pixels of the image, or take the objects out"),
    "mask size": _Problem(
        "error", "with an RLE mask of another size than the image",
        "encode it at the image's size"),
    "mask points": _Problem(
        "warning", "with no polygon of three points, which are not learned from, nor their boxes",
        f"{_THREE}, or no segmentation at all"),
    "mask some points": _Problem(
        "warning", "with polygons of fewer than three points, which are left out", _THREE, True),
    "keypoints malformed": _Problem(
        "fact", "with keypoints of another form than COCO's, which are left out: none are learned",
        "", True),
}  # fmt: skip
_POLYGON_PROBLEMS = ("mask points", "mask some points")


def object_findings(
    objects: Iterable[LabelledObject],
    classes: Sequence[str],
    demands: Demands,
    drops_polygons: bool = True,
) -> CheckedObjects:
    """What is wrong with the objects.

    Args:
        classes: names by class index.
        drops_polygons: whether the reader of the set (that of COCO files) leaves out polygons of
            fewer than three points and objects that have no others. Elsewhere such polygons end a
            training of masks.
    """
    objects, findings, lost = list(objects), [], set()
    masks = [mask_problem(o.segmentation, o.size) for o in objects]
    groups = _grouped(objects, masks, demands)
    for key, problem in _problems(demands, drops_polygons).items():
        things, shows_box = groups[key], key.startswith("box") and key != "box none"
        items = [f"{o.name} {o.box}" if shows_box else o.name for o in things]
        what = f"of {len(objects)} objects {problem.what}"
        findings += found(problem.severity, demands.where, items, what, problem.remedy)
        lost |= set() if problem.learnable else {o.name for o in things}
    learned = [not o.is_crowd and o.name not in lost for o in objects]
    table = _table(objects, masks)
    findings += [
        *_learnable(demands, objects, any(learned)),
        *_classes(demands, table.classes[learned], classes),
        *consistency_findings(table, demands.where, demands.masks),
    ]
    has_rle = any(isinstance(o.segmentation, dict) for o in objects if not o.is_crowd)
    numbers = numbers_of(table.of(np.array(learned, bool)), classes)
    if any(finding.severity == "error" for finding in findings):
        numbers = numbers._replace(sizes=())  # they may be none
    return CheckedObjects(findings, has_rle, numbers)


def _grouped(
    objects: Sequence[LabelledObject], masks: Sequence[str | None], demands: Demands
) -> dict[str, list]:
    """The objects that have each problem; that of their masks is in `masks`."""
    groups = defaultdict(list)
    for thing, mask in zip(objects, masks, strict=True):
        problems = (
            ("box", box_problem(thing.box, thing.size)),
            ("mask", mask),
            ("keypoints", _keypoint_problem(thing.keypoints, demands.keypoints)),
        )
        for kind, problem in problems:
            if problem:
                groups[f"{kind} {problem}"].append(thing)
    return groups


def _keypoint_problem(keypoints: Any, number: int) -> str | None:
    is_right = is_keypoints(keypoints) and (not number or len(keypoints) in (0, 3 * number))
    return None if keypoints == () or is_right else "malformed"


def _problems(demands: Demands, drops_polygons: bool) -> dict[str, _Problem]:
    """The problems that matter to the reader of the set."""
    problems = dict(_PROBLEMS)
    if demands.masks and not drops_polygons:
        for key in _POLYGON_PROBLEMS:
            problems[key] = problems[key]._replace(severity="error")
    if not demands.masks:
        always = ("mask malformed", "mask far")
        kept = (*always, *_POLYGON_PROBLEMS) if drops_polygons else always[1:]
        problems = {k: p for k, p in problems.items() if k in kept or not k.startswith("mask")}
    if demands.keypoints:
        what = f"with keypoints that are not x, y, visibility of {demands.keypoints} points"
        remedy = (
            "give one list of numbers, [x1, y1, v1, x2, ...], for ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"
        )
        problems["keypoints malformed"] = _Problem("error", what, remedy, True)
    return problems


def _table(objects: Sequence[LabelledObject], problems: Sequence[str | None]) -> Objects:
    """The objects as arrays.

    Args:
        problems: of their masks.
    """
    values = [{"bbox": o.box, "area": o.area} for o in objects]
    boxes = boxes_of(values)
    boxes[~(boxes[:, 2:] > 0).all(1)] = np.nan
    numbers: dict[Hashable, int] = {}
    return Objects(
        [o.name for o in objects],
        np.array([numbers.setdefault(o.image, len(numbers)) for o in objects], int),
        np.array([o.class_index for o in objects], int),
        boxes,
        np.array([o.size or (np.nan, np.nan) for o in objects], float).reshape(-1, 2),
        np.array([o.is_crowd for o in objects], bool),
        *measured([o.segmentation for o in objects], problems),
        areas_of(values),
    )


def _learnable(demands: Demands, objects: Sequence, is_any_learned: bool) -> Iterator[Finding]:
    reason = "all are iscrowd" if all(o.is_crowd for o in objects) else "see the other lines"
    reason = reason if objects else "there are no annotations"
    if not is_any_learned and demands.trained:
        remedy = "give another file, or objects with a box inside their image"
        yield Finding("error", demands.where, f"no object can be learned ({reason})", remedy)
    elif not is_any_learned:
        remedy = "AP will be nan; evaluate on a set with objects"
        yield Finding("warning", demands.where, f"there is no ground truth ({reason})", remedy)


def _classes(demands: Demands, learned: np.ndarray, classes: Sequence[str]) -> list[Finding]:
    used = set(learned.tolist())
    unused = [name for index, name in enumerate(classes) if used and index not in used]
    what = f"of {len(classes)} classes have no object"
    if not demands.trained:
        return found("fact", demands.where, unused, what, "their AP will be nan")
    what += " to learn from"
    remedy = "nothing is learned of them; leave them out, or add objects"
    return found("warning", demands.where, unused, what, remedy)
