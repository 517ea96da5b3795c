"""The pictures of a source: a decoded image, or the frames of a video or a webcam."""

import contextlib
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

from d2_isonet.utils.messages import UserError, printable

from .sources import Source
from .videos import FrameReader, NoVideo

MOST_PIXELS = 178_956_970  # Pillow's limit: it raises above twice its MAX_IMAGE_PIXELS


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


def read_pictures(source: Source, report: Report, max_frames: int | None) -> Iterator[Picture]:
    """The pictures of one source. If it cannot be read: none, and the reason in the report.

    Args:
        max_frames: limit for a video or a webcam; None for all.
    """
    try:
        yield from _read(source, report, max_frames)
    except (NoPicture, NoVideo, OSError) as error:
        report.skip(source, error)


def _read(source: Source, report: Report, max_frames: int | None) -> Iterator[Picture]:
    if source.kind == "image":
        pixels, note = decode(Path(source.path).read_bytes())
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


class NoPicture(UserError):
    """The bytes are not an image, or a damaged or too large one; the message says which."""


class Pixels(NamedTuple):
    """A decoded image."""

    bgr: np.ndarray  # (H, W, 3), uint8, upright
    note: str = ""  # how decoding changed the image, if the user should know


def decode(data: bytes, most_pixels: int = MOST_PIXELS, longest: int | None = None) -> Pixels:
    """The image in `data`, turned by its EXIF orientation.

    As in training, grey, palette and CMYK images become RGB, and an alpha channel is dropped.

    Args:
        most_pixels: limit for the image in the file, checked before it is decoded.
        longest: larger images are reduced until their longer side has this many pixels.

    Raises:
        NoPicture: there is no image, or it cannot be decoded.
    """
    if not data:
        raise NoPicture("it is empty (0 bytes)")
    too_large = f"has more than {most_pixels / 1e6:.0f} million pixels; reduce it first"
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > most_pixels:
                raise NoPicture(f"it is {image.width} x {image.height} and {too_large}")
            return _upright(image, longest)
    except NoPicture:
        raise
    except UnidentifiedImageError as error:
        raise NoPicture("it is not an image that Pillow can read") from error
    except Image.DecompressionBombError as error:
        raise NoPicture(f"it {too_large}") from error
    except MemoryError as error:
        raise NoPicture("there is not enough memory for it") from error
    except Exception as error:  # on a damaged file, Pillow's plug-ins raise all kinds of errors
        raise NoPicture(f"it is damaged ({error or type(error).__name__})") from error


def _upright(image: Image.Image, longest: int | None) -> Pixels:
    width, height = image.size
    if longest:
        image.draft(None, (longest, longest))  # lets a JPEG be decoded at a smaller size
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
        what = f"its pixels are from {low:g} to {high:g}"
        raise NoPicture(what, "save it with 8 bits per channel")
    scaled = (values * (255 / high if high else 0)).round().astype(np.uint8)
    note = f"{image.mode} pixels, of more than 8 bits, scaled: 0-{high:g} became 0-255. "
    return Image.fromarray(scaled).convert("RGB"), note
