"""The pictures of a source: the image itself, or the frames of a video or a camera."""

import io
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from d2_isonet.utils.messages import UserError

from .sources import Source
from .videos import FrameReader, NoVideo

MOST_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # Pillow's own limit, past which it raises


class NoPicture(UserError):
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


class Picture(NamedTuple):
    """An image, or a frame.

    Args:
        source: what it is of.
        entry: what images.json says of it, beside its id.
        pixels: (H, W, 3), uint8, BGR.
        rate: of the video, frames a second; 0 for an image.
    """

    source: Source
    entry: dict
    pixels: np.ndarray
    rate: float = 0.0


class Report:
    """What a person is told beside the bar of progress; `skipped` is why, by name of the source."""

    def __init__(self):
        self.skipped: dict[str, str] = {}

    def skip(self, source: Source, reason: object) -> None:
        self.skipped[source.name] = str(reason)
        self.note(f"skipped: {source.name}: {reason}")

    def note(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)


def read_pictures(source: Source, report: Report, max_frames: int | None) -> Iterator[Picture]:
    """Those of one source; none, and why in the report, where it cannot be read.

    Args:
        max_frames: of a video or a camera; None for all.
    """
    if source.kind == "image":
        yield from _read_image(source, report)
        return
    try:
        reader = FrameReader(_address(source))
    except (NoVideo, OSError) as error:
        report.skip(source, error)
        return
    try:
        yield from _read_frames(source, reader, max_frames)
    finally:
        reader.close()
    if reader.number == 0:
        report.skip(source, "it has no frame that can be read")
    elif max_frames is None and reader.breaks_off():
        report.note(
            f"{source.name}: {reader.number} of {reader.announced} frames could be read; the file "
            "is damaged or was cut off"
        )


def _address(source: Source) -> str | int:
    return int(source.path) if source.kind == "webcam" else source.path


def _read_image(source: Source, report: Report) -> Iterator[Picture]:
    try:
        pixels, note = decode(Path(source.path).read_bytes())
    except (NoPicture, OSError) as error:
        report.skip(source, error)
        return
    if note:
        report.note(f"{source.name}: {note}")
    yield Picture(source, _entry(source, pixels), pixels)


def _read_frames(source: Source, reader: FrameReader, max_frames: int | None) -> Iterator[Picture]:
    for number, frame in enumerate(itertools.islice(reader, max_frames)):
        entry = {**_entry(source, frame), "frame": number, "seconds": number / reader.rate}
        yield Picture(source, entry, frame, reader.rate)


def _entry(source: Source, pixels: np.ndarray) -> dict:
    height, width = pixels.shape[:2]
    return {"file_name": source.name, "width": width, "height": height}


def count_pictures(sources: Sequence[Source], max_frames: int | None) -> int | None:
    """How many there will be, as far as the files tell; None where one does not."""
    total = 0
    for source in sources:
        number = 1 if source.kind == "image" else _count_frames(source, max_frames)
        if number is None:
            return None
        total += number
    return total


def _count_frames(source: Source, max_frames: int | None) -> int | None:
    if source.kind == "webcam":
        return max_frames
    try:
        reader = FrameReader(source.path)
    except (NoVideo, OSError):
        return 0
    reader.close()
    announced = reader.announced
    return announced if announced is None or max_frames is None else min(announced, max_frames)


def require_camera(number: int) -> None:
    """Raise NoVideo where there is no such camera."""
    FrameReader(number).close()
