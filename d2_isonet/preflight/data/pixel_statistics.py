"""Compares the pixels of a data set with MODEL.PIXEL_MEAN and PIXEL_STD."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
from detectron2.config import CfgNode

from d2_isonet.data.image_file import read_upright
from d2_isonet.preflight.findings import Finding
from d2_isonet.utils.messages import UserError

from .cache import PreflightCache, file_stamp

_IMAGES = 50  # that are measured
_SIDE = 500  # pixels of the shorter side of an image that are taken
_FAR = 100.0  # of 255, between the means of a channel
_RATIO = 5.0  # between the deviations of a channel
_PRETRAINED = (
    "if it starts from random weights; pretrained ones need those that they were trained with"
)


def pixel_findings(cfg: CfgNode, where: str, entries: Sequence[tuple]) -> Iterator[Finding]:
    """The mean and deviation of the channels, and a warning if the network expects far others.

    Args:
        entries: of the images, whose first value is the path; some are read.
    """
    chosen = entries[:: -(-len(entries) // _IMAGES)] if entries else []
    moments = np.array([x for path, *_ in chosen if (x := _moments(path, cfg))])
    if not len(moments):
        return
    mean, square = moments.mean(0).reshape(2, 3)
    deviation = np.sqrt((square - mean**2).clip(0))
    if cfg.INPUT.FORMAT == "BGR":
        mean, deviation = mean[::-1], deviation[::-1]
    expected, scale = np.array(cfg.MODEL.PIXEL_MEAN), np.array(cfg.MODEL.PIXEL_STD)
    values = [f"{name} {np.round(x, 1).tolist()}" for name, x in
              (("mean", mean), ("deviation", deviation),
               ("MODEL.PIXEL_MEAN", expected), ("MODEL.PIXEL_STD", scale))]  # fmt: skip
    what = f"pixels ({cfg.INPUT.FORMAT}) of {len(moments)} images: {', '.join(values)}"
    yield Finding("fact", where, what)
    ratio = (
        np.abs(np.log(deviation.clip(0.1) / scale.clip(1e-6))).max() if (scale != 1).any() else 0.0
    )
    if np.abs(mean - expected).max() > _FAR or ratio > np.log(_RATIO):
        new = [np.round(x, 1).tolist() for x in (mean, deviation.clip(1))]
        remedy = f'set MODEL.PIXEL_MEAN "{new[0]}" MODEL.PIXEL_STD "{new[1]}", {_PRETRAINED}'
        yield Finding("warning", where, f"the network expects other pixels: {what}", remedy)


def _moments(path: str, cfg: CfgNode) -> list[float] | None:
    """The means of R, G, B, and of their squares; None if the file cannot be read."""
    key, stamp = f"moments|{os.path.abspath(path)}", file_stamp(path)
    with closing(PreflightCache()) as cache:
        kept = cache.get(key, stamp)
        if not kept:
            try:
                image = read_upright(path, "RGB", cfg.INPUT.MAX_IMAGE_PIXELS)
            except (UserError, FileNotFoundError):  # another check names the file and the reason
                return None
            step = max(1, min(image.shape[:2]) // _SIDE)
            pixels = image[::step, ::step].reshape(-1, 3).astype(np.float64)
            kept = [*pixels.mean(0), *(pixels**2).mean(0)]
            cache.put([(key, stamp, kept)])
    return kept
