"""The pictures of a source: a decoded image, or the frames of a video or a webcam."""

import contextlib
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from d2_isonet.data.image_file import (
    MOST_PIXELS,
    UnreadableImage,
    is_deep,
    opened,
    read_file,
    unreadable,
    upright,
)
from d2_isonet.utils.messages import printable

from .sources import Source
from .videos import FrameReader, NoVideo

_BLOCK = 1 << 20  # pixels


class Picture(NamedTuple):
    """An image or a frame of a source."""

    source: Source
    entry: dict  # its entry in images.json, without the id
    pixels: np.ndarray  # (H, W, 3), uint8, BGR
    rate: float = 0.0  # frames per second of the video; 0 for an image


class Report:
    """Notes beside the progress bar; `skipped` has the reason by name of the source."""

    def __init__(self):
        self.skipped: dict[str, str] = {}

    def skip(self, source: Source, reason: object) -> None:
        self.skipped[source.name] = str(reason)
        self.note(f"skipped: {source.name}: {reason}")

    def note(self, text: str) -> None:
        tqdm.write(printable(text, "message"), file=sys.stderr)


def read_pictures(
    source: Source, report: Report, max_frames: int | None, most_pixels: int = MOST_PIXELS
) -> Iterator[Picture]:
    """The pictures of one source. If it cannot be read: none, and the reason in the report.

    Args:
        max_frames: limit for a video or a webcam; None for all.
        most_pixels: INPUT.MAX_IMAGE_PIXELS, of an image.
    """
    try:
        yield from _read(source, report, max_frames, most_pixels)
    except UnreadableImage as error:
        report.skip(source, error.reason)
    except (NoVideo, OSError) as error:
        report.skip(source, error)


def _read(
    source: Source, report: Report, max_frames: int | None, most_pixels: int
) -> Iterator[Picture]:
    if source.kind == "image":
        pixels, note = decode(read_file(source.path, most_pixels), most_pixels)
        if note:
            report.note(f"{source.name}: {note}")
        yield Picture(source, _entry(source, pixels), pixels)
        return
    file_or_camera = int(source.path) if source.kind == "webcam" else source.path
    with contextlib.closing(FrameReader(file_or_camera)) as reader:
        for number, frame in enumerate(itertools.islice(reader, max_frames)):
            entry = {**_entry(source, frame), "frame": number, "seconds": number / reader.rate}
            yield Picture(source, entry, frame, reader.rate)
    if reader.number == 0:
        raise NoVideo("it has no frame that can be read")
    if max_frames is None and reader.breaks_off():
        report.note(
            f"{source.name}: {reader.number} of {reader.announced} frames could be read; the file "
            "is damaged or was cut off"
        )


def _entry(source: Source, pixels: np.ndarray) -> dict:
    height, width = pixels.shape[:2]
    return {"file_name": source.name, "width": width, "height": height}


def count_pictures(sources: Sequence[Source], max_frames: int | None) -> int | None:
    """The number of pictures that the files announce; None if one of them does not."""
    counts = [_count(source, max_frames) for source in sources]
    return None if None in counts else sum(filter(None, counts))


def _count(source: Source, max_frames: int | None) -> int | None:
    if source.kind != "video":
        return 1 if source.kind == "image" else max_frames
    try:
        with contextlib.closing(FrameReader(source.path)) as reader:
            announced = reader.announced
    except (NoVideo, OSError):
        return 0
    return announced if announced is None or max_frames is None else min(announced, max_frames)


def require_camera(number: int) -> None:
    """Raise NoVideo if there is no such camera."""
    FrameReader(number).close()


class Pixels(NamedTuple):
    """A decoded image."""

    bgr: np.ndarray  # (H, W, 3), uint8, upright
    note: str = ""  # how decoding changed the image, if the user should know


def decode(data: bytes, most_pixels: int = MOST_PIXELS, longest: int | None = None) -> Pixels:
    """The image in `data`, turned by its orientation.

    As in training, grey, palette and CMYK images become RGB, and an alpha channel is dropped.

    Args:
        most_pixels: limit for the image in the file, checked before it is decoded.
        longest: larger images are reduced until their longer side has this many pixels.

    Raises:
        UnreadableImage: there is no image, or it cannot be decoded; its `reason` names no file.
    """
    with opened("", data, most_pixels) as image:
        width, height = image.size
        if longest and 2 * min(image.size) * longest < max(image.size):
            what = f"it is {width} x {height}: reduced to {longest} pixels on the long side"
            raise unreadable("", f"{what}, it would be thinner than a pixel")
        return _upright(image, longest)


def _upright(image: Image.Image, longest: int | None) -> Pixels:
    largest, note = max(image.size), ""
    if longest:
        image.draft(None, (longest, longest))  # lets a JPEG be decoded at a smaller size
    pixels = upright(image)
    if is_deep(pixels.mode):
        pixels, note = _to_8_bits(pixels)
    elif pixels.mode != "RGB":
        pixels = pixels.convert("RGB")
    if longest and largest > longest:
        pixels.thumbnail((longest, longest))
        note += f"reduced from {largest} to {max(pixels.size)} pixels on the long side"
    return Pixels(np.ascontiguousarray(np.asarray(pixels.convert("RGB"))[:, :, ::-1]), note)


def _to_8_bits(image: Image.Image) -> tuple[Image.Image, str]:
    """A grey image of more than 8 bits, scaled so that its brightest pixel is white.

    Pillow's own conversion would clip almost all of it to white.
    """
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and math.isfinite(high)):  # also NaN
        raise unreadable("", f"its pixels are from {low:g} to {high:g}; save it with 8 bits")
    scaled, flat = np.empty(values.size, np.uint8), values.reshape(-1)
    for first in range(0, values.size, _BLOCK):  # all at once takes four times the memory
        block = flat[first : first + _BLOCK].astype(np.float64)
        scaled[first : first + _BLOCK] = (block * (255 / high if high else 0)).round()
    note = f"{image.mode} pixels, of more than 8 bits, scaled: 0-{high:g} became 0-255. "
    return Image.fromarray(scaled.reshape(values.shape)), note
