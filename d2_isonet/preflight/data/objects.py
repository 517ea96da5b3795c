"""What is wrong with the labelled objects of a data set: their boxes, masks and classes."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from d2_isonet.preflight.findings import Finding, Severity, found

_POINT = 1.0  # pixels of rounding that a box may go beyond its image without a finding
Size = tuple[float, float]  # width and height of an image in pixels


def box_problem(box: Any, size: Size | None) -> str | None:
    """The name of what is wrong with a box (x, y, width, height), or None."""
    if box is None:
        return "none"
    try:
        if isinstance(box, (str, dict)) or len(box) != 4 or not all(map(math.isfinite, box)):
            return "malformed"
    except (TypeError, OverflowError):
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


def mask_problem(segmentation: object, size: Size | None) -> str | None:
    """The name of what is wrong with a segmentation, or None."""
    if segmentation is None or segmentation == []:
        return "none"
    if isinstance(segmentation, dict):
        return _rle_problem(segmentation, size)
    if not isinstance(segmentation, list):
        return "malformed"
    try:
        if not all(all(map(math.isfinite, polygon)) for polygon in segmentation):
            return "malformed"
        usable = [len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in segmentation]
    except (TypeError, OverflowError):
        return "malformed"
    if all(usable):
        return None
    return "some points" if any(usable) else "points"


def _rle_problem(rle: dict, size: Size | None) -> str | None:
    counts, shape = rle.get("counts"), rle.get("size")
    if not isinstance(shape, (list, tuple)) or len(shape) != 2 or not all(map(_is_count, shape)):
        return "malformed"
    pixels = _pixels_of(counts)
    if pixels is None or pixels > shape[0] * shape[1]:
        return "malformed"
    return "size" if size is not None and tuple(shape) != (size[1], size[0]) else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _pixels_of(counts: object) -> int | None:
    """The sum of run lengths. Above the pixels of the image, pycocotools writes past its memory."""
    if isinstance(counts, list):
        return sum(counts) if all(map(_is_count, counts)) else None
    if isinstance(counts, str):
        counts = counts.encode("ascii", "replace")
    if not isinstance(counts, bytes):
        return None
    runs: list[int] = []
    value = shift = 0
    for byte in counts:  # pycocotools' rleFrString: 5 bits a byte, differences from the third run
        digit = byte - 48
        if not 0 <= digit < 64 or shift > 30:
            return None
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            value -= (1 << shift) if digit & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return sum(runs) if not shift and all(run >= 0 for run in runs) else None


class Demands(NamedTuple):
    """What a run needs of a data set.

    Args:
        where: the file or the name of the set, for its findings.
        masks: whether every object needs a mask.
        trained: whether the set is trained on; otherwise a set without objects is no error.
    """

    where: str
    masks: bool = False
    trained: bool = True


class LabelledObject(NamedTuple):
    """What the checks need of an object of any data set.

    Args:
        name: by which the user finds it.
        box: x, y, width, height in pixels; or any other value that the data set has; None for none.
        segmentation: polygons, RLE, or any other value; None for none.
        size: width and height of the image; None if they are unknown.
    """

    name: str
    class_index: int
    box: object = None
    segmentation: object = None
    is_crowd: bool = False
    size: Size | None = None


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
        'give [[x1, y1, x2, y2, ...], ...] in pixels or {"counts": ..., "size": [h, w]}'),
    "mask size": _Problem(
        "error", "with an RLE mask of another size than the image",
        "encode it at the image's size"),
    "mask points": _Problem(
        "warning", "with no polygon of three points, which are not learned from, nor their boxes",
        f"{_THREE}, or no segmentation at all"),
    "mask some points": _Problem(
        "warning", "with polygons of fewer than three points, which are left out", _THREE, True),
}  # fmt: skip
_POLYGON_PROBLEMS = ("mask points", "mask some points")


def object_findings(
    objects: Iterable[LabelledObject],
    classes: Sequence[str],
    demands: Demands,
    drops_polygons: bool = True,
) -> tuple[list[Finding], bool]:
    """What is wrong with the objects, and whether any mask is RLE.

    Args:
        classes: names by class index.
        drops_polygons: whether the reader of the set (that of COCO files) leaves out polygons of
            fewer than three points and objects that have no others. Elsewhere such polygons end a
            training of masks.
    """
    objects, findings, lost = list(objects), [], set()
    groups = _grouped(objects)
    for key, problem in _problems(demands.masks, drops_polygons).items():
        things, shows_box = groups[key], key.startswith("box") and key != "box none"
        items = [f"{o.name} {o.box}" if shows_box else o.name for o in things]
        what = f"of {len(objects)} objects {problem.what}"
        findings += found(problem.severity, demands.where, items, what, problem.remedy)
        lost |= set() if problem.learnable else {o.name for o in things}
    learned = [o for o in objects if not o.is_crowd and o.name not in lost]
    findings += [*_learnable(demands, objects, learned), *_classes(demands, learned, classes)]
    return findings, any(isinstance(o.segmentation, dict) for o in objects if not o.is_crowd)


def _grouped(objects: Sequence[LabelledObject]) -> dict[str, list[LabelledObject]]:
    """The objects that have each problem."""
    groups = defaultdict(list)
    for thing in objects:
        box = box_problem(thing.box, thing.size)
        mask = mask_problem(thing.segmentation, thing.size)
        for kind, problem in (("box", box), ("mask", mask)):
            if problem:
                groups[f"{kind} {problem}"].append(thing)
    return groups


def _problems(masks: bool, drops_polygons: bool) -> dict[str, _Problem]:
    """The problems that matter to the reader of the set."""
    problems = dict(_PROBLEMS)
    if masks and not drops_polygons:
        for key in _POLYGON_PROBLEMS:
            problems[key] = problems[key]._replace(severity="error")
    if not masks:
        kept = ("mask malformed", *_POLYGON_PROBLEMS) if drops_polygons else ()
        problems = {k: p for k, p in problems.items() if k in kept or k.startswith("box")}
    return problems


def _learnable(demands: Demands, objects: Sequence, learned: Sequence) -> Iterator[Finding]:
    reason = "all are iscrowd" if all(o.is_crowd for o in objects) else "see the other lines"
    reason = reason if objects else "there are no annotations"
    if not learned and demands.trained:
        remedy = "give another file, or objects with a box inside their image"
        yield Finding("error", demands.where, f"no object can be learned ({reason})", remedy)
    elif not learned:
        remedy = "AP will be nan; evaluate on a set with objects"
        yield Finding("warning", demands.where, f"there is no ground truth ({reason})", remedy)


def _classes(demands: Demands, learned: Sequence, classes: Sequence[str]) -> list[Finding]:
    used = {thing.class_index for thing in learned}
    unused = [name for index, name in enumerate(classes) if used and index not in used]
    what = f"of {len(classes)} classes have no object"
    if not demands.trained:
        return found("fact", demands.where, unused, what, "their AP will be nan")
    remedy = "nothing is learned of them; leave them out, or add objects"
    return found("warning", demands.where, unused, what, remedy)
