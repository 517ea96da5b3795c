"""What a network was trained to see: the order, mean, deviation and size of its images."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from detectron2.config import CfgNode

if TYPE_CHECKING:
    from PIL.Image import Image


class Pixels(NamedTuple):
    """Images as a network wants them.

    Args:
        format: "RGB" or "BGR", the order of the channels.
        mean, std: per channel in that order, of pixels of range 0-255.
        resize, crop_size: of evaluation: the shorter side, then the side of the centre crop.
    """

    format: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int
    crop_size: int

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """What the network takes, from images (..., 3, H, W) in `format`, of range 0-255."""
        mean, std = (images.new_tensor(x, dtype=torch.float32) for x in (self.mean, self.std))
        return (images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)

    def transform(self) -> "Callable[[Image], torch.Tensor]":
        """From a PIL image to (3, crop_size, crop_size), normalized: what evaluation does."""
        from .imagenet import ImageNetMapper

        crop = ImageNetMapper(False, self.format, self.crop_size, self.resize).transform

        def to_input(image: "Image") -> torch.Tensor:
            rgb = crop(image.convert("RGB"))
            return self.normalize(rgb.flip(0) if self.format == "BGR" else rgb)

        return to_input


def pixels_of(cfg: CfgNode) -> Pixels:
    """What cfg asks for."""
    sizes = cfg.INPUT.CLASSIFICATION
    mean, std = tuple(cfg.MODEL.PIXEL_MEAN), tuple(cfg.MODEL.PIXEL_STD)
    return Pixels(cfg.INPUT.FORMAT, mean, std, sizes.RESIZE, sizes.CROP_SIZE)


def use_recorded_pixels(cfg: CfgNode, record: Mapping | None) -> None:
    """Set order, mean and deviation in cfg to what the record of a weights file says.

    What is none there stays, for the check of the weights to tell.
    """
    pixels = (record or {}).get("input") or {}
    if pixels.get("format") in ("RGB", "BGR"):
        cfg.INPUT.FORMAT = pixels["format"]
    for key, name in (("PIXEL_MEAN", "pixel_mean"), ("PIXEL_STD", "pixel_std")):
        values = pixels.get(name)
        if isinstance(values, list) and all(isinstance(x, int | float) for x in values):
            cfg.MODEL[key] = [float(x) for x in values]
