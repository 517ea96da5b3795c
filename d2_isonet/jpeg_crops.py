"""Crops of JPEG files: what lies below the crop is not decoded."""

import io
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image

try:
    import simplejpeg
except ImportError:  # optional: the same pixels, a tenth to a fifth more images per second
    simplejpeg = None

# Start-of-frame markers of 8-bit Huffman-coded JPEGs whose rows follow each other in the file.
_SEQUENTIAL = (0xC0, 0xC1)
# Segments that may stand before it: Huffman, quantization, restart, APPn, comment.
_SKIPPED = (0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE)
_END_OF_IMAGE = b"\xff\xd9"
# Larger ones are left to Pillow, which warns of them or refuses them by their true size.
_MAX_PIXELS = 64_000_000


class Frame(NamedTuple):
    """Size of a JPEG in pixels, its channels, and where in the file its height is stated."""

    width: int
    height: int
    channels: int
    height_position: int


def find_frame(data: bytes) -> Frame | None:
    """The frame of a complete sequential JPEG file; None for every other file.

    Args:
        data: the whole file. One that does not end with a JPEG's end (truncated) has no frame
            here: decoded whole it is an error, its upper rows alone might not be.
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


def decode_box(data: bytes, frame: Frame, box: tuple[int, int, int, int]) -> np.ndarray:
    """RGB pixels (h, w, 3) of a box, equal to those of the whole image; uint8.

    By simplejpeg where it is installed, otherwise by Pillow: both are libjpeg-turbo, the first
    decodes into an array without detours. Damage of the file below the box goes unnoticed.

    Args:
        data: the file, of which `frame` is find_frame's.
        box: left, top, right, bottom in pixels.

    Raises:
        OSError, SyntaxError, ValueError: what Pillow raises for a file it cannot decode.
    """
    left, top, right, bottom = box
    data = _shortened(data, frame, bottom + 2)
    if simplejpeg is not None and frame.channels == 3:
        try:
            return simplejpeg.decode_jpeg(data, "RGB", strict=False)[top:bottom, left:right]
        except ValueError:
            pass  # a rare chroma format that it lacks, or damage that Pillow says better
    return np.array(_decode(data).crop(box))


def decode_reduced(data: bytes, frame: Frame, bottom: int, scale: int) -> Image.Image:
    """RGB image of (at least) the rows above `bottom`, 1/scale as wide and high, rounded up.

    Args:
        bottom: number of rows needed, in pixels of the original.
        scale: 2, 4 or 8: the decoder's inverse transform gives so many fewer pixels a block.

    Raises:
        OSError, SyntaxError, ValueError: what Pillow raises for a file it cannot decode.
    """
    return _decode(_shortened(data, frame, bottom + 2 * scale), scale)


def _shortened(data: bytes, frame: Frame, rows: int) -> bytes:
    """The file with a smaller height stated in it: decoders stop after that many rows.

    `rows` includes two more than wanted: the chroma of a row is interpolated with the next one's.
    """
    if rows >= frame.height:
        return data
    shortened = bytearray(data)
    struct.pack_into(">H", shortened, frame.height_position, rows)
    return bytes(shortened)


def _decode(data: bytes, scale: int = 1) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.decodermaxblock = len(data)  # decoding in one go is 5 % faster than by 64 kB
        if scale > 1:
            image.draft(None, (image.width // scale, image.height // scale))
        if image.mode != "RGB":
            return image.convert("RGB")
        image.load()
        return image
