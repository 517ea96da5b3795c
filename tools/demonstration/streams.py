"""The pictures of a source: the image itself, or the frames of a video or a camera."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from .pictures import NoPicture, decode
from .sources import Source
from .videos import FrameReader, NoVideo


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
