"""Masks of annotations, polygons or RLE: whether they are valid, their bounds, their areas."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from d2_isonet.utils.messages import UserError

Size = tuple[float, float]  # width and height of an image in pixels
_FAR = 10  # sizes of the image that a polygon may reach beyond it
_FARTHEST = 1e6  # pixels, whatever the image: rasterizing takes memory for the way to each point
HARMFUL = frozenset({"malformed", "far"})  # problems of what must not be rasterized
UNUSABLE = HARMFUL | {"none", "points"}  # problems of what cannot be measured
_BLOCK = 50_000  # masks that are measured at once, which bounds the memory


def mask_problem(segmentation: object, size: Size | None) -> str | None:
    """The name of what is wrong with a segmentation, or None.

    detectron2 and pycocotools rasterize a mask that has none of "malformed" and "far"; some of
    these make them read or write past their memory.
    """
    if segmentation is None or segmentation == []:
        return "none"
    if isinstance(segmentation, dict):
        return _rle_problem(segmentation, size)
    if not isinstance(segmentation, list):
        return "malformed"
    limit = min(_FAR * max(size), _FARTHEST) if size else _FARTHEST
    try:
        if not all(math.isfinite(sum(polygon)) for polygon in segmentation):
            return "malformed"
        if any(max(x, default=0) > limit or min(x, default=0) < -limit for x in segmentation):
            return "far"
        usable = [len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in segmentation]
    except (TypeError, OverflowError):
        return "malformed"
    if all(usable):
        return None
    return "some points" if any(usable) else "points"


def refuse_masks(dataset_dict: dict) -> None:
    """Raise UserError if rasterizing a mask of the image would leave or fill the memory."""
    width, height = map(dataset_dict.get, ("width", "height"))
    for annotation in dataset_dict.get("annotations", ()):
        mask = annotation.get("segmentation")
        size = (width, height) if width and height else None
        if isinstance(mask, (list, dict)) and mask_problem(mask, size) in HARMFUL:
            what = (
                f"{dataset_dict['file_name']}: an object's mask is malformed or far outside of it"
            )
            raise UserError(what, "d2-isonet check-data names such objects of a COCO json")


def _rle_problem(rle: dict, size: Size | None) -> str | None:
    counts, shape = rle.get("counts"), rle.get("size")
    if not isinstance(shape, (list, tuple)) or len(shape) != 2 or not all(map(_is_count, shape)):
        return "malformed"
    if _pixels_of(counts) != shape[0] * shape[1]:
        return "malformed"
    return "size" if size is not None and tuple(shape) != (size[1], size[0]) else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _pixels_of(counts: object) -> int | None:
    """The sum of run lengths. Unless it is the image's, pycocotools leaves its memory or fills it.

    Above it, pycocotools writes past its memory; below it, the rest of the mask is what the memory
    held before.
    """
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


def measured(
    segmentations: Sequence[Any], problems: Sequence[str | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (N, 4) as x0, y0, x1, y1 and areas (N,) in pixels; nan if the problem is `UNUSABLE`.

    The area of polygons is the sum of theirs: larger than the mask's where they overlap.

    Args:
        problems: what `mask_problem` returns for each.
    """
    bounds, areas = np.full((len(problems), 4), np.nan), np.full(len(problems), np.nan)
    for first in range(0, len(problems), _BLOCK):
        block = range(first, min(first + _BLOCK, len(problems)))
        usable = [i for i in block if problems[i] not in UNUSABLE]
        for kind, measure in ((list, _measured_polygons), (dict, _measured_rle)):
            places = [i for i in usable if isinstance(segmentations[i], kind)]
            if places:
                bounds[places], areas[places] = measure([segmentations[i] for i in places])
    return bounds, areas


def _measured_polygons(masks: Sequence[list]) -> tuple[np.ndarray, np.ndarray]:
    usable = [[x for x in mask if len(x) >= 6 and len(x) % 2 == 0] for mask in masks]
    polygons = list(itertools.chain.from_iterable(usable))
    x, y = np.fromiter(itertools.chain.from_iterable(polygons), float).reshape(-1, 2).T
    ends = np.cumsum([len(polygon) // 2 for polygon in polygons])
    starts = np.concatenate([[0], ends[:-1]])
    following = np.arange(1, len(x) + 1)
    following[ends - 1] = starts
    areas = np.abs(np.add.reduceat(x * y[following] - x[following] * y, starts)) / 2
    firsts = np.cumsum([0, *map(len, usable[:-1])])  # the first polygon of each mask
    points = starts[firsts]
    bounds = [f.reduceat(v, points) for f in (np.minimum, np.maximum) for v in (x, y)]
    return np.stack(bounds, 1), np.add.reduceat(areas, firsts)


def _measured_rle(masks: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    packed = [
        coco_mask.frPyObjects(m, *m["size"]) if isinstance(m["counts"], list) else m for m in masks
    ]
    boxes = coco_mask.toBbox(packed).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    # one at a time: with numpy 2, pycocotools cannot measure more than 255 at once
    return boxes, np.array([coco_mask.area(mask) for mask in packed], float)


def right_areas(areas: np.ndarray, boxes: np.ndarray, mask_areas: np.ndarray) -> np.ndarray:
    """The areas (N,), with that of the mask (N,) or box (N, 4) in place of nan and ruled out ones.

    The area of the mask is allowed, that of the box, and all between, give or take the outline; in
    a set without masks all above that of a line through the box. The same area for boxes of all
    sizes is ruled out, too. An object with an invalid box keeps its area.

    Args:
        boxes: x, y, width, height.
    """
    width, height = boxes[:, 2].clip(0), boxes[:, 3].clip(0)
    box_areas, outline = width * height, width + height
    has_mask = (mask_areas > 0) & (mask_areas <= 1.5 * box_areas + outline)
    least = np.where(has_mask, 0.5 * mask_areas - outline, np.maximum(width, height) / 2)
    allowed = (areas > 0) & (areas <= 1.5 * box_areas + outline)
    allowed &= areas >= np.minimum(least, box_areas / 2)
    known = box_areas[(box_areas > 0) & ~np.isnan(areas)]
    if len(known) >= 10 and len(np.unique(areas)) == 1 and known.max() > 3 * known.min():
        allowed[:] = False
    return np.where(allowed | ~(box_areas > 0), areas, np.where(has_mask, mask_areas, box_areas))
