"""Random crops of image files; a JPEG is decoded only down to the last row of the crop."""

import io
import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torchvision import transforms

from .image_file import FORMATS, MOST_PIXELS, errors_naming, read_file, read_image

try:
    import simplejpeg
except ImportError:  # optional: the same pixels, 10 to 20 % more images per second
    simplejpeg = None

BILINEAR = Image.Resampling.BILINEAR
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels

# Start-of-frame markers of 8-bit Huffman-coded JPEGs whose rows follow each other in the file.
_SEQUENTIAL = (0xC0, 0xC1)
# Segments that may precede the frame: Huffman, quantization, restart, APPn, comment.
_SKIPPED = (0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE)
_END_OF_IMAGE = b"\xff\xd9"
# Larger images are left to Pillow, which warns of them or refuses them by their true size.
_MAX_PIXELS = 64_000_000


class Frame(NamedTuple):
    """Size of a JPEG in pixels, its channels, and the position of its height in the file."""

    width: int
    height: int
    channels: int
    height_position: int


@dataclass
class RandomResizedCrop:
    """A random crop of an image file, resized and flipped: uint8 (3, size, size), range 0-255.

    From the same state of torch's generator, crops and flips are those of torchvision's
    RandomResizedCrop and RandomHorizontalFlip.

    Args:
        size: pixels.
        scale: share of the image's area that a crop covers.
        ratio: width / height of a crop.
        exact: True gives the pixels of torchvision on PIL images. False resizes with PyTorch's
            uint8 kernel (the same antialiased bilinear filter; some pixels differ by 1) and
            decodes JPEGs at 1/2, 1/4 or 1/8 if the crop stays at least as large as `size` (pixels
            differ by 1 to 2 on average).
        most_pixels: INPUT.MAX_IMAGE_PIXELS, of the whole image.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    exact: bool = False
    most_pixels: int = MOST_PIXELS

    def __call__(self, path: str, data: bytes | None = None) -> torch.Tensor:
        """A crop of the image at `path`; arguments and errors are those of `read_image`."""
        data = read_file(path, self.most_pixels) if data is None else data
        frame = find_frame(data)
        if frame is None or frame.width * frame.height > self.most_pixels:
            image = read_image(path, data, self.most_pixels)
            pixels = self._resize(np.array(image.crop(self.draw(*image.size))))
        else:
            box = self.draw(frame.width, frame.height)
            with errors_naming(path):
                pixels = self._crop_jpeg(data, frame, box)
        return pixels.flip(2) if torch.rand(1).item() < 0.5 else pixels

    def draw(self, width: int, height: int) -> Box:
        """The box of a random crop of an image of that size, in pixels."""
        image = torch.empty(height, width, device="meta")  # only its shape is read
        get_params = transforms.RandomResizedCrop.get_params
        top, left, h, w = get_params(image, self.scale, self.ratio)
        return left, top, left + w, top + h

    def _crop_jpeg(self, data: bytes, frame: Frame, box: Box) -> torch.Tensor:
        """The box of a JPEG file as (3, size, size), at a smaller scale if that suffices."""
        shorter = min(box[2] - box[0], box[3] - box[1])
        scale = next((n for n in (8, 4, 2) if shorter >= n * self.size), 1)
        if self.exact or scale == 1:
            return self._resize(decode_box(data, frame, box))
        image = decode_reduced(data, frame, box[3], scale)
        # The box now has fractions of pixels, which PyTorch's kernel does not support.
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


def find_frame(data: bytes) -> Frame | None:
    """The frame of a complete sequential JPEG file; None for every other file.

    Args:
        data: the whole file. For a truncated file the result is None, so that it is decoded as a
            whole, which fails; its upper rows alone might decode.
    """
    if not data.startswith(b"\xff\xd8") or _END_OF_IMAGE not in data[-64:]:
        return None
    position = 2
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker, length = struct.unpack_from(">BH", data, position + 1)
        if marker in _SEQUENTIAL:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, position + 4)
            usual = bits == 8 and 0 < width * height <= _MAX_PIXELS
            return Frame(width, height, channels, position + 5) if usual else None
        if marker not in _SKIPPED:
            return None
        position += 2 + length
    return None


def decode_box(data: bytes, frame: Frame, box: Box) -> np.ndarray:
    """RGB pixels (h, w, 3) of a box, equal to those of the whole image; uint8.

    simplejpeg decodes if it is installed, otherwise Pillow. Both use libjpeg-turbo; the first
    decodes directly into an array. Damage of the file below the box remains unnoticed.

    Args:
        data: the file, with `find_frame(data)` as `frame`.

    Raises:
        OSError, SyntaxError, ValueError: Pillow cannot decode the file.
    """
    left, top, right, bottom = box
    data = _shortened(data, frame, bottom + 2)
    if simplejpeg is not None and frame.channels == 3:
        try:
            return simplejpeg.decode_jpeg(data, "RGB", strict=False)[top:bottom, left:right]
        except ValueError:
            pass  # a rare chroma format, or damage that Pillow describes better
    return np.array(_decode(data).crop(box))


def decode_reduced(data: bytes, frame: Frame, bottom: int, scale: int) -> Image.Image:
    """RGB image of (at least) the rows above `bottom`, 1/scale as wide and high, rounded up.

    Args:
        bottom: number of rows needed, in pixels of the original.
        scale: 2, 4 or 8, which the decoder's inverse transform supports.

    Raises:
        OSError, SyntaxError, ValueError: Pillow cannot decode the file.
    """
    return _decode(_shortened(data, frame, bottom + 2 * scale), scale)


def _shortened(data: bytes, frame: Frame, rows: int) -> bytes:
    """The file with a smaller height in its header: decoders stop after that many rows.

    `rows` must include two extra rows, because chroma is interpolated between neighbouring rows.
    """
    if rows >= frame.height:
        return data
    shortened = bytearray(data)
    struct.pack_into(">H", shortened, frame.height_position, rows)
    return bytes(shortened)


def _decode(data: bytes, scale: int = 1) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.decodermaxblock = len(data)  # 5 % faster than in blocks of 64 kB
        if scale > 1:
            image.draft(None, (image.width // scale, image.height // scale))
        if image.mode != "RGB":
            return image.convert("RGB")
        image.load()
        return image
