"""From the bytes of an image file, whatever they are, to upright 8-bit pixels; or why not."""

import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MOST_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # Pillow's own limit, past which it raises


class NoPicture(ValueError):
    """Bytes that are no image, or one that is damaged or too large; the message says which."""


class Pixels(NamedTuple):
    """A decoded image.

    Args:
        bgr: (H, W, 3), uint8, upright.
        note: what a person should know of how it came about; "" for nothing.
    """

    bgr: np.ndarray
    note: str = ""


def decode(data: bytes, most_pixels: int = MOST_PIXELS, longest: int | None = None) -> Pixels:
    """The image in `data`, turned by its EXIF orientation.

    Grey, palette and CMYK images become colour ones, an alpha channel is dropped, as in training.

    Args:
        most_pixels: of an image that is decoded; the size is told by its first bytes.
        longest: larger images are reduced until no side is longer, pixels.

    Raises:
        NoPicture: there is none that can be decoded.
    """
    if not data:
        raise NoPicture("it is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_size(image.size, most_pixels)
            return _upright(image, longest)
    except NoPicture:
        raise
    except UnidentifiedImageError as error:
        raise NoPicture("it is no image of a kind that Pillow knows") from error
    except Image.DecompressionBombError as error:
        raise NoPicture(_too_large("it", most_pixels)) from error
    except MemoryError as error:
        raise NoPicture("there is not enough memory for it") from error
    except Exception as error:  # Pillow's plug-ins raise of everything on a damaged file
        raise NoPicture(f"it is damaged ({error or type(error).__name__})") from error


def _check_size(size: tuple[int, int], most_pixels: int) -> None:
    if size[0] * size[1] > most_pixels:
        raise NoPicture(_too_large(f"it is {size[0]} x {size[1]} and", most_pixels))


def _too_large(what: str, most_pixels: int) -> str:
    return f"{what} has more than {most_pixels / 1e6:.0f} million pixels; reduce it first"


def _upright(image: Image.Image, longest: int | None) -> Pixels:
    width, height = image.size
    if longest:
        image.draft(None, (longest, longest))  # a JPEG is decoded no further than this needs
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        upright, note = _to_8_bits(upright)
    else:
        upright, note = upright.convert("RGB"), ""
    if longest and max(width, height) > longest:
        upright.thumbnail((longest, longest))
        note += f"reduced from {max(width, height)} to {max(upright.size)} pixels on the long side"
    return Pixels(np.ascontiguousarray(np.asarray(upright)[:, :, ::-1]), note)


def _to_8_bits(image: Image.Image) -> tuple[Image.Image, str]:
    """A grey image of more than 8 bits, scaled so that its brightest pixel is white.

    Pillow's own conversion would clip almost all of it to white.
    """
    values = np.asarray(image, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and math.isfinite(high)):  # also NaN
        raise NoPicture(f"its pixels are from {low:g} to {high:g}; save it with 8 bits a channel")
    scaled = (values * (255 / high if high else 0)).round().astype(np.uint8)
    note = f"{image.mode} pixels, of more than 8 bits, scaled: 0-{high:g} became 0-255. "
    return Image.fromarray(scaled).convert("RGB"), note
