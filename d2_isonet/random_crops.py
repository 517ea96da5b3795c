"""Random resized crops of image files, decoded no further than the crop needs."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from .image_folder import errors_naming, read_image
from .jpeg_crops import Frame, decode_box, decode_reduced, find_frame

BILINEAR = Image.Resampling.BILINEAR
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels


class RandomResizedCrop:
    """A random crop of an image file, resized and flipped: uint8 (3, size, size), range 0-255.

    Crops and flips are those that torchvision's RandomResizedCrop and RandomHorizontalFlip draw
    from torch's generator in the same state.

    Args:
        size: pixels.
        scale: share of the image's area that a crop covers.
        ratio: width / height of a crop.
        exact: True for the pixels of torchvision on PIL images. False resizes with PyTorch's
            uint8 kernel (the same antialiased bilinear filter; some pixels differ by 1) and
            decodes JPEGs at 1/2, 1/4 or 1/8 where the crop stays as large as `size` (pixels
            differ by 1 to 2 in the mean).
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        exact: bool = False,
    ):
        self.size = size
        self.scale = scale
        self.ratio = ratio
        # In float32, like torchvision's: the crops are the same to the pixel.
        self.log_ratio = torch.log(torch.tensor(ratio)).tolist()
        self.exact = exact

    def __call__(self, path: str, data: bytes | None = None) -> torch.Tensor:
        """The crop of the image at `path`; arguments and errors are those of `read_image`."""
        if data is None:
            with errors_naming(path):
                data = Path(path).read_bytes()
        frame = find_frame(data)
        if frame is None:
            image = read_image(path, data)
            pixels = self._resize(np.array(image.crop(self.draw(*image.size))))
        else:
            box = self.draw(frame.width, frame.height)
            with errors_naming(path):
                pixels = self._decode(data, frame, box)
        return pixels.flip(2) if torch.rand(1).item() < 0.5 else pixels

    def draw(self, width: int, height: int) -> Box:
        """The box of a random crop of an image of that size, in pixels."""
        for _ in range(10):
            area = width * height * torch.empty(1).uniform_(*self.scale).item()
            ratio = torch.empty(1).uniform_(*self.log_ratio).exp_().item()
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = int(torch.randint(0, height - h + 1, (1,)))
                left = int(torch.randint(0, width - w + 1, (1,)))
                return left, top, left + w, top + h
        return self._central(width, height)

    def _central(self, width: int, height: int) -> Box:
        """The largest box in the centre whose shape is within `ratio`."""
        narrowest, widest = self.ratio
        w = round(height * widest) if width / height > widest else width
        h = round(width / narrowest) if width / height < narrowest else height
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h

    def _decode(self, data: bytes, frame: Frame, box: Box) -> torch.Tensor:
        """The box of a JPEG file as (3, size, size), at a smaller scale where that suffices."""
        shorter = min(box[2] - box[0], box[3] - box[1])
        scale = next((n for n in (8, 4, 2) if shorter >= n * self.size), 1)
        if self.exact or scale == 1:
            return self._resize(decode_box(data, frame, box))
        image = decode_reduced(data, frame, box[3], scale)
        # The box now has fractions of pixels, which PyTorch's kernel does not know.
        left, top, right, bottom = (x / scale for x in box)
        reduced = image.resize((self.size, self.size), BILINEAR, (left, top, right, bottom))
        return _channels_first(np.array(reduced))

    def _resize(self, crop: np.ndarray) -> torch.Tensor:
        """(h, w, 3) to (3, size, size)."""
        size = (self.size, self.size)
        if self.exact:
            return _channels_first(np.array(Image.fromarray(crop).resize(size, BILINEAR)))
        return interpolate(_channels_first(crop)[None], size, mode="bilinear", antialias=True)[0]


def _channels_first(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)
