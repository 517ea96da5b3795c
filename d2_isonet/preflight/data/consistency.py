"""Compares the values of labelled objects: boxes with images and masks, areas with both."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from d2_isonet.data.masks import right_areas
from d2_isonet.preflight.findings import Finding, Severity, found

_MOST = 0.5  # share of the objects from which on a finding is one of the whole set: an error
_FEW = 0.005  # share up to which it is one of single objects, as every large set has some
_UNLIKELY = math.log(1e-3)  # chance of boxes that lie so by accident
_CROWDS = 0.2  # share of crowds that is a warning; COCO's is 0.01
_NOTHING = 1e-6  # square pixels
_CLOSE = 3.0  # pixels between a box and the bounds of its mask
_PIXELS = "COCO's are in pixels of the image, boxes x, y, width, height"
_TIMES = f"{_PIXELS}: multiply x and width by its width, y and height by its height"
_UNITS = {1: "fractions (0 to 1)", 100: "percent", 1000: "thousandths"}


class Objects(NamedTuple):
    """The objects of a data set as arrays; what is unknown or invalid is nan.

    Args:
        names: by which the user finds them.
        images, classes: (N,) index of the image and of the class.
        boxes: (N, 4) x, y, width, height in pixels; nan if one of these is not positive, too.
        sizes: (N, 2) width and height of the image in pixels.
        crowd: (N,) whether it is a crowd.
        bounds, mask_areas: (N, 4) and (N,) of the mask, see `measured`.
        areas: (N,) as the data set states them.
    """

    names: list[str]
    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    sizes: np.ndarray
    crowd: np.ndarray
    bounds: np.ndarray
    mask_areas: np.ndarray
    areas: np.ndarray

    def of(self, chosen: np.ndarray) -> "Objects":
        names = [self.names[i] for i in np.flatnonzero(chosen)]
        return Objects(names, *(values[chosen] for values in self[1:]))

    def total(self) -> str:
        return f"of {len(self.names)} objects"


def consistency_findings(objects: Objects, where: str, masks: bool) -> list[Finding]:
    """What is wrong with objects whose values are valid each by itself.

    Args:
        masks: whether the masks are learned.
    """
    placed = objects.of(np.isfinite(objects.boxes).all(1) & np.isfinite(objects.sizes).all(1))
    masked = objects.of(np.isfinite(objects.boxes).all(1) & (objects.mask_areas > _NOTHING))
    return [
        *(_units(placed, where) if placed.names else ()),
        *(_layout(placed, where) if placed.names else ()),
        *_masks_and_boxes(masked, where),
        *_empty_masks(objects, where, masks),
        *_areas(objects, where),
        *_crowds(objects, where),
        *_twins(objects, where),
        *_same_boxes(objects, where),
    ]


def _severity(part: int, whole: int, matters: bool = True) -> Severity:
    return "error" if matters and part > _MOST * whole else "warning"


def _units(objects: Objects, where: str) -> Iterator[Finding]:
    """Boxes in fractions, percent or thousandths of their image instead of pixels."""
    start, end = objects.boxes[:, :2], objects.boxes[:, :2] + objects.boxes[:, 2:]
    beyond = (end > objects.sizes + 1).any(1).mean()
    for unit, name in _UNITS.items():
        most = objects.boxes if unit == 1 else end  # fractions of centers and corners are alike
        inside = (start >= 0).all(1) & (most <= 1.005 * unit).all(1)
        chance = np.log(np.minimum(1, unit / objects.sizes[inside])).sum()
        fills = inside.all() and _fills(start, end, objects.sizes, unit)
        is_unlikely = chance < _UNLIKELY or (unit > 1 and beyond > 0.1)
        if inside.any() and is_unlikely and (unit == 1 or fills):
            some = objects.of(np.asarray(inside))
            what = f"{objects.total()} with a box in {name} of its image, not in pixels"
            remedy = f"{_TIMES}{f', and divide by {unit}' * (unit > 1)}"
            severity = _severity(len(some.names), len(objects.names))
            yield from found(severity, where, _with_boxes(some), what, remedy)
            return


def _fills(start: np.ndarray, end: np.ndarray, sizes: np.ndarray, unit: int) -> bool:
    """Whether boxes fill 0 to `unit` in both directions, but not their images."""
    fills = (start.min(0) <= 0.1 * unit).all() and (end.max(0) >= 0.9 * unit).all()
    return bool(fills and ((end > sizes + 1).any() or ((end / sizes).max(0) <= 0.9).any()))


def _with_boxes(objects: Objects) -> list[str]:
    boxes = objects.boxes.round(4).tolist()
    return [f"{name} {box}" for name, box in zip(objects.names, boxes, strict=True)]


_LAYOUTS = {  # the corners of a box (x1, y1, x2, y2), were its four numbers in another order
    "x1, y1, x2, y2": lambda b: b,
    "center x, center y, width, height": lambda b: np.hstack(
        [b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2]
    ),
    "y, x, height, width": lambda b: np.hstack([b[:, 1::-1], b[:, 1::-1] + b[:, :1:-1]]),
}


def _layout(objects: Objects, where: str) -> Iterator[Finding]:
    """Boxes that fit their images only in another order of the four numbers, or not at all."""
    beyond = ~_inside(_corners(objects.boxes), objects.sizes)
    others = {name: _inside(read(objects.boxes), objects.sizes) for name, read in _LAYOUTS.items()}
    name = max(others, key=lambda key: others[key].mean())
    fits = others[name].mean() >= 0.99
    some = objects.of(beyond)
    what = f"{objects.total()} with a box that goes beyond its image"
    if beyond.sum() >= 3 and beyond.mean() > (0.1 if fits else _MOST):
        how = f"as {name} all fit, so convert them" if fits else _PIXELS
        yield from found("error", where, _with_boxes(some), what, how)
    elif len(objects.names) >= 20 and (_corners(objects.boxes)[:, 2:] < 0.5 * objects.sizes).all():
        what = "all boxes lie in the upper left quarter of their images"
        yield Finding("warning", where, what, "if the images were enlarged, enlarge the boxes")


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


def _inside(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether corners span a box within its image, up to a pixel."""
    start, end = corners[:, :2], corners[:, 2:]
    return np.logical_and.reduce(np.hstack([start >= -1, end <= sizes + 1, start < end]), axis=1)


def _overlap(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Intersection over union of corners (N, 4) each; 0 of empty ones."""
    sides = np.minimum(one[:, 2:], two[:, 2:]) - np.maximum(one[:, :2], two[:, :2])
    shared = sides.clip(0).prod(1)
    areas = [(x[:, 2:] - x[:, :2]).clip(0).prod(1) for x in (one, two)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)


def _masks_and_boxes(objects: Objects, where: str) -> list[Finding]:
    """Masks whose bounds are not their box; either may be the wrong one."""
    corners = _corners(objects.boxes)
    far = np.abs(objects.bounds - corners).max(1, initial=0) > _CLOSE
    other = objects.of(far & (_overlap(objects.bounds, corners) < 0.5))
    what = f"{objects.total()} with a mask that is not of its box"
    bounds = other.bounds.round(2).tolist()
    items = [f"{n} (mask {m})" for n, m in zip(_with_boxes(other), bounds, strict=True)]
    severity = _severity(len(items), len(objects.names))
    severity = "fact" if len(items) <= _FEW * len(objects.names) else severity
    return found(severity, where, items, what, _how_masks_differ(other))


def _how_masks_differ(objects: Objects) -> str:
    """What makes most of the masks fit their boxes."""
    if not objects.names:
        return ""
    corners, bounds, sizes = _corners(objects.boxes), objects.bounds, np.tile(objects.sizes, 2)
    sides = (bounds[:, 2:] - bounds[:, :2]) / objects.boxes[:, 2:]
    ratio = np.tile(np.median(sides, 0).clip(1e-9), 2)
    by = f"{ratio[0]:.4g} times (x), {ratio[1]:.4g} times (y)"
    ways = {
        "their x and y are exchanged: exchange them": (bounds[:, [1, 0, 3, 2]], corners),
        "they are in fractions of the image: multiply by its width and height": (
            bounds * sizes,
            corners,
        ),
        "they are in percent of the image: multiply by its width and height / 100": (
            bounds * sizes / 100,
            corners,
        ),
        f"they are {by} as large as the boxes: scale one of the two": (bounds / ratio, corners),
        "the boxes are x1, y1, x2, y2: convert them": (bounds, objects.boxes),
    }
    for name, (one, two) in ways.items():
        if np.median(_overlap(one, two)) > 0.7:
            return name
    return "correct the masks or the boxes: a box is that of its mask"


def _empty_masks(objects: Objects, where: str, matters: bool) -> list[Finding]:
    known = np.isfinite(objects.mask_areas) & ~objects.crowd
    empty = objects.of(known & (objects.mask_areas <= _NOTHING))
    what = f"of {known.sum()} masks that cover nothing (RLE of zeros, or points on a line)"
    severity = _severity(len(empty.names), known.sum(), matters)
    return found(severity, where, empty.names, what, "correct them, or take the objects out")


def _areas(objects: Objects, where: str) -> list[Finding]:
    right = right_areas(objects.areas, objects.boxes, objects.mask_areas)
    some = objects.of((right != objects.areas) & ~np.isnan(objects.areas))
    items = [f"{name} (area {area:g})" for name, area in zip(some.names, some.areas, strict=True)]
    what = f"{objects.total()} with an area that is not that of their mask or box"
    remedy = "evaluation takes the mask's or the box's for AP by size; correct it, or leave it out"
    return found("warning", where, items, what, remedy)


def _crowds(objects: Objects, where: str) -> list[Finding]:
    number, crowds = len(objects.names), int(objects.crowd.sum())
    what = f"{objects.total()} ({crowds / max(1, number):.0%}) are iscrowd, which are not learned"
    what += " from, and in an evaluation count as neither right nor wrong"
    if not max(2, _CROWDS * number) < crowds < number:  # all is an error elsewhere
        return []
    remedy = "set iscrowd 0 where it is one object; some tools write 1 for every brushed mask"
    return found("warning", where, objects.of(objects.crowd).names, what, remedy)


def _twins(objects: Objects, where: str) -> Iterator[Finding]:
    """The same box twice in an image."""
    objects = objects.of(np.isfinite(objects.boxes).all(1) & ~objects.crowd)
    masks = np.nan_to_num(objects.mask_areas, nan=-1)
    keys = np.column_stack([objects.images, objects.boxes, objects.classes, masks])
    order = np.lexsort(keys.T[::-1])
    equal = np.diff(keys[order], axis=0) == 0
    same_box, same_object = equal[:, :5].all(1), equal.all(1)
    twice, shared = (
        [objects.names[i] for i in order[1:][x]] for x in (same_object, same_box & ~equal[:, 5])
    )
    what = f"{objects.total()} that are in their image twice"
    yield from found("warning", where, twice, what, "take one of the two out")
    what = f"{objects.total()} with the box of another class's object"
    yield from found("fact", where, shared, what)


def _same_boxes(objects: Objects, where: str) -> Iterator[Finding]:
    """Every image has the same boxes."""
    objects = objects.of(np.isfinite(objects.boxes).all(1))
    images = len(np.unique(objects.images))
    if images < 3 or len(objects.names) < images:
        return
    keys = np.column_stack([objects.boxes, objects.images])
    keys = keys[np.lexsort(keys.T[::-1])]
    new = np.diff(keys, axis=0, prepend=np.nan) != 0
    boxes, pairs = int(new[:, :4].any(1).sum()), int(new.any(1).sum())
    if pairs >= 0.9 * boxes * images:
        what = f"all {images} images have the same {boxes} box{'es' * (boxes > 1)}"
        yield Finding("warning", where, what, "see whether they were copied from one image")
