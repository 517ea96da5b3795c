"""The format of a network's images: channel order, mean, standard deviation and size."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from PIL.Image import Image

from .imagenet import ImageNetMapper


class Pixels(NamedTuple):
    """The images that a network expects.

    Args:
        format: "RGB" or "BGR", the order of the channels.
        mean, std: per channel in that order, for pixels of range 0-255.
        resize, crop_size: of evaluation, the shorter side and then the side of the centre crop.
    """

    format: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int
    crop_size: int

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """The network's input from images (..., 3, H, W) in `format`, range 0-255."""
        mean, std = (images.new_tensor(x, dtype=torch.float32) for x in (self.mean, self.std))
        return (images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)

    def transform(self) -> Callable[[Image], torch.Tensor]:
        """Evaluation's transform of a PIL image to the input (3, crop_size, crop_size)."""
        crop = ImageNetMapper(False, self.format, self.crop_size, self.resize).transform

        def to_input(image: Image) -> torch.Tensor:
            rgb = crop(image.convert("RGB"))
            return self.normalize(rgb.flip(0) if self.format == "BGR" else rgb)

        return to_input


def pixels_of(cfg: CfgNode) -> Pixels:
    """The pixels that `cfg` describes."""
    sizes = cfg.INPUT.CLASSIFICATION
    mean, std = tuple(cfg.MODEL.PIXEL_MEAN), tuple(cfg.MODEL.PIXEL_STD)
    return Pixels(cfg.INPUT.FORMAT, mean, std, sizes.RESIZE, sizes.CROP_SIZE)


def use_recorded_pixels(cfg: CfgNode, record: Mapping | None) -> None:
    """Set channel order, mean and deviation in cfg to those in the record of a weights file.

    Invalid entries change nothing; the validation of the weights reports them.
    """
    pixels = (record or {}).get("input") or {}
    if pixels.get("format") in ("RGB", "BGR"):
        cfg.INPUT.FORMAT = pixels["format"]
    for key, name in (("PIXEL_MEAN", "pixel_mean"), ("PIXEL_STD", "pixel_std")):
        values = pixels.get(name)
        if isinstance(values, list) and all(isinstance(x, int | float) for x in values):
            cfg.MODEL[key] = [float(x) for x in values]
