"""Compares the number and the sizes of objects with what a detector can find."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode

from d2_isonet.config.options import value_of
from d2_isonet.preflight.findings import Finding
from d2_isonet.utils.messages import shortened

from .consistency import Objects

_SAMPLE = 2000  # objects whose sizes are kept
_SMALLEST = math.sqrt(0.3)  # side of a square with IoU 0.3 with an anchor of side 1
_SHARE = 0.3  # of the objects; from this share on, anchors that miss them are a warning


class Numbers(NamedTuple):
    """How many objects are learned from, and how large they are; as plain lists, to be cached.

    Args:
        images: pairs of a number of objects and the number of images that hold as many.
        classes: pairs of a name and the number of its objects.
        sizes: width and height of an object and of its image, in pixels, of a sample.
    """

    images: Sequence[Sequence[int]] = ()
    classes: Sequence[Sequence] = ()
    sizes: Sequence[Sequence[float]] = ()


def numbers_of(objects: Objects, classes: Sequence[str]) -> Numbers:
    """The numbers of a set.

    Args:
        classes: names by class index.
    """
    images = sorted(Counter(Counter(objects.images.tolist()).values()).items())
    counts = Counter(objects.classes.tolist())
    sizes = np.hstack([objects.boxes[:, 2:], objects.sizes])
    sizes = sizes[np.isfinite(sizes).all(1)]
    sizes = sizes[:: max(1, math.ceil(len(sizes) / _SAMPLE))]
    return Numbers(images, [(x, counts[i]) for i, x in enumerate(classes)], sizes.tolist())


def density_findings(cfg: CfgNode, where: str, numbers: Numbers, trained: bool) -> list[Finding]:
    """Facts on the number and size of objects, and a warning if `cfg` cannot find them."""
    if not numbers.images:
        return []
    findings = [_summary(where, numbers), *_limits(cfg, where, numbers, trained)]
    return findings + (list(_anchors(cfg, where, numbers, trained)) if numbers.sizes else [])


def _summary(where: str, numbers: Numbers) -> Finding:
    counts, images = np.array(numbers.images).T
    mean = (counts * images).sum() / images.sum()
    classes = shortened([f"{name} {n:,}" for name, n in numbers.classes], most=20)
    what = (
        f"objects an image: {counts[0]} to {counts[-1]}, {mean:.3g} on average; a class: {classes}"
    )
    return Finding("fact", where, what)


def _limits(cfg: CfgNode, where: str, numbers: Numbers, trained: bool) -> Iterator[Finding]:
    """Images with more objects than some keys allow the detector to find."""
    most = numbers.images[-1][0]
    low = {key: limit for key, limit in _keys(cfg, trained).items() if 0 <= limit < most}
    if low:
        dense = sum(images for count, images in numbers.images if count > min(low.values()))
        what = (
            f"{dense} of {sum(n for _, n in numbers.images)} images hold more objects, the densest "
            f"{most}, than can be found with {' '.join(f'{k} {value_of(cfg, k)}' for k in low)}"
        )
        # more proposals than objects, as some miss
        higher = {key: _rounded_up(most, 100 if key.startswith("TEST") else 1000) for key in low}
        remedy = f"set {' '.join(f'{key} {value}' for key, value in higher.items())}"
        yield Finding("warning", where, what, remedy)


def _rounded_up(number: int, step: int) -> int:
    return math.ceil(number / step) * step


def _keys(cfg: CfgNode, trained: bool) -> dict[str, int]:
    """The keys that limit the objects of an image, and their numbers."""
    limits = {"TEST.DETECTIONS_PER_IMAGE": cfg.TEST.DETECTIONS_PER_IMAGE}
    levels = len(cfg.MODEL.RPN.IN_FEATURES)
    if cfg.MODEL.META_ARCHITECTURE == "RetinaNet":
        levels = len(cfg.MODEL.RETINANET.IN_FEATURES)
        limits["MODEL.RETINANET.TOPK_CANDIDATES_TEST"] = cfg.MODEL.RETINANET.TOPK_CANDIDATES_TEST
    elif cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RPN":
        for part in ("TEST", "TRAIN") if trained else ("TEST",):
            for kind in ("PRE", "POST"):
                name = f"{kind}_NMS_TOPK_{part}"
                limits[f"MODEL.RPN.{name}"] = cfg.MODEL.RPN[name]
    a_level = ("PRE_NMS", "TOPK_CANDIDATES")  # these count on each level of the pyramid
    return {k: n * levels if any(x in k for x in a_level) else n for k, n in limits.items()}


def _anchors(cfg: CfgNode, where: str, numbers: Numbers, trained: bool) -> Iterator[Finding]:
    """The sizes of the objects as the network sees them, and the anchors that miss them."""
    sides = _resized(cfg, np.array(numbers.sizes), trained)
    anchors = np.array([x for level in cfg.MODEL.ANCHOR_GENERATOR.SIZES for x in level], float)
    low, middle, high = np.quantile(sides, [0.05, 0.5, 0.95])
    what = (
        f"objects are {middle:.3g} pixels wide and high after resizing, 9 of 10 between {low:.3g} "
        f"and {high:.3g}; anchors {anchors.min():g} to {anchors.max():g}"
    )
    yield Finding("fact", where, what)
    small = (sides < _SMALLEST * anchors.min()).mean()
    large = (sides > anchors.max() / _SMALLEST).mean()
    share, kind = (small, "small") if small >= large else (large, "large")
    if share > _SHARE:
        what = f"{share:.0%} of the objects are too {kind} for every anchor (IoU below 0.3)"
        quantile = np.quantile(sides, 0.1 if kind == "small" else 0.9)
        nearest = anchors.min() if kind == "small" else anchors.max()
        yield Finding("warning", where, what, _remedy(cfg, float(quantile / nearest)))


def _resized(cfg: CfgNode, sizes: np.ndarray, trained: bool) -> np.ndarray:
    """Square root of the areas of objects after resizing; sizes: see `Numbers`."""
    shortest = float(np.mean(cfg.INPUT.MIN_SIZE_TRAIN)) if trained else cfg.INPUT.MIN_SIZE_TEST
    longest = cfg.INPUT.MAX_SIZE_TRAIN if trained else cfg.INPUT.MAX_SIZE_TEST
    image = sizes[:, 2:]
    scale = np.minimum(shortest / image.min(1), longest / image.max(1)) if shortest else 1.0
    return np.sqrt(sizes[:, 0] * sizes[:, 1]) * scale


def _remedy(cfg: CfgNode, ratio: float) -> str:
    """The lines of config with which most objects find an anchor.

    Args:
        ratio: side of objects to that of the nearest anchor.
    """
    factor = 2.0 ** (math.floor if ratio < 1 else math.ceil)(math.log2(ratio))
    sizes = [[round(x * factor, 1) for x in level] for level in cfg.MODEL.ANCHOR_GENERATOR.SIZES]
    anchors = f'set MODEL.ANCHOR_GENERATOR.SIZES "{sizes}"'
    if not 1 / 4 <= factor <= 4 or not cfg.INPUT.MIN_SIZE_TEST:
        return anchors
    keys = ("MIN_SIZE_TRAIN", "MAX_SIZE_TRAIN", "MIN_SIZE_TEST", "MAX_SIZE_TEST")
    scaled = {k: np.divide(cfg.INPUT[k], factor).astype(int).tolist() for k in keys}
    scaled["MIN_SIZE_TRAIN"] = f'"{tuple(scaled["MIN_SIZE_TRAIN"])}"'
    return f"{anchors}, or resize to {' '.join(f'INPUT.{k} {v}' for k, v in scaled.items())}"
