"""What is wrong with the labelled objects of a data set: their boxes, masks and classes."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from d2_isonet.preflight.findings import Finding, found
from d2_isonet.utils.messages import shortened

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
    severity: str
    what: str  # follows "3 of 7 objects"
    remedy: str
    learnable: bool = False  # despite the problem


_XYXY = "correct or remove them; x1, y1, x2, y2 instead of x, y, width, height looks like this"
_BOX_PROBLEMS = {
    "none": _Problem("error", "without bbox", "give each one, or take the object out"),
    "malformed": _Problem(
        "error", "with a bbox that is not four finite numbers", "correct them or take them out"
    ),
    "empty": _Problem(
        "warning",
        "with a box of zero or negative width or height, which are not learned from",
        _XYXY,
    ),
    "outside": _Problem(
        "warning", "with a box wholly outside of the image, which are not learned from", _XYXY
    ),
    "beyond": _Problem(
        "warning", "with a box that goes beyond the image and is cut off there", _XYXY, True
    ),
}  # fmt: skip
_MASK_PROBLEMS = {
    "none": _Problem(
        "error", "without segmentation", "MODEL.MASK_ON False, or a faster_*.yaml, does without"
    ),
    "malformed": _Problem(
        "error", "with a segmentation that is neither polygons nor RLE",
        "give [[x1, y1, x2, y2, ...], ...] in pixels or {\"counts\": ..., \"size\": [h, w]}",
    ),
    "size": _Problem(
        "error", "with an RLE mask of another size than the image", "encode it at the image's size"
    ),
    "points": _Problem(
        "warning", "with no polygon of three points, which are not learned from, nor their boxes",
        "give them three points, or no segmentation at all",
    ),
    "some points": _Problem(
        "warning", "with polygons of fewer than three points, which are left out",
        "give them three points", True,
    ),
}  # fmt: skip


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
    objects = list(objects)
    boxes = _grouped(objects, lambda o: box_problem(o.box, o.size))
    shapes = _grouped(objects, lambda o: mask_problem(o.segmentation, o.size))
    problems = _mask_problems(demands.masks, drops_polygons)
    shapes = {key: group for key, group in shapes.items() if key in problems}
    lost = _lost(boxes, _BOX_PROBLEMS) | _lost(shapes, problems)
    learned = [o for o in objects if not o.is_crowd and o.name not in lost]
    of = f"of {len(objects)} objects"
    findings = [
        *_named(demands.where, boxes, _BOX_PROBLEMS, of, _name_and_box),
        *_named(demands.where, shapes, problems, of, lambda o: o.name),
        *_learnable(demands, objects, learned),
        *_classes(demands, learned, classes),
    ]
    return findings, any(isinstance(o.segmentation, dict) for o in objects if not o.is_crowd)


def _name_and_box(thing: LabelledObject) -> str:
    return thing.name if thing.box is None else f"{thing.name} {thing.box}"


def _mask_problems(masks: bool, drops_polygons: bool) -> dict[str, _Problem]:
    problems = dict(_MASK_PROBLEMS)
    if not masks:
        names = ("malformed", "points", "some points") if drops_polygons else ()
        return {name: problems[name] for name in names}
    if not drops_polygons:
        for name in ("points", "some points"):
            problems[name] = problems[name]._replace(severity="error")
    return problems


def _grouped(
    objects: Iterable[LabelledObject], problem: Callable[[LabelledObject], str | None]
) -> dict[str, list[LabelledObject]]:
    groups = defaultdict(list)
    for thing in objects:
        name = problem(thing)
        if name:
            groups[name].append(thing)
    return groups


def _lost(groups: dict[str, list[LabelledObject]], problems: dict[str, _Problem]) -> set[str]:
    return {o.name for key, group in groups.items() if not problems[key].learnable for o in group}


def _named(where, groups, problems, of: str, text: Callable[[LabelledObject], str]):
    for key, problem in problems.items():
        items = [text(thing) for thing in groups.get(key, [])]
        yield from found(problem.severity, where, items, f"{of} {problem.what}", problem.remedy)


def _learnable(demands: Demands, objects: Sequence, learned: Sequence) -> list[Finding]:
    if learned:
        return []
    reason = "all are iscrowd" if all(o.is_crowd for o in objects) else "see the other lines"
    reason = reason if objects else "there are no annotations"
    if demands.trained:
        remedy = "give another file, or objects with a box inside their image"
        return [Finding("error", demands.where, f"no object can be learned ({reason})", remedy)]
    remedy = "AP will be nan; evaluate on a set with objects"
    return [Finding("warning", demands.where, f"there is no ground truth ({reason})", remedy)]


def _classes(demands: Demands, learned: Sequence, classes: Sequence[str]) -> list[Finding]:
    count = Counter(thing.class_index for thing in learned)
    without = [name for index, name in enumerate(classes) if not count[index]]
    if not learned or not without:
        return []
    what = f"{len(without)} of {len(classes)} classes have no object: {shortened(without)}"
    if not demands.trained:
        return [Finding("fact", demands.where, what, "their AP will be nan", tuple(without))]
    remedy = "nothing is learned of them; leave them out, or add objects"
    return [Finding("warning", demands.where, what, remedy, tuple(without))]
