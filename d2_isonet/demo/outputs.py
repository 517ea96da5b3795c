"""Annotated copies: an image file each, or the video that a source's frames make."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from d2_isonet.utils.files import as_save_error
from d2_isonet.utils.messages import UserError, shortened

from .sources import Found, Source
from .streams import Picture
from .videos import FrameWriter

IMAGES, RESULTS = "images.json", "results.json"
_AS_THEY_ARE = {
    "image": (".jpg", ".jpeg", ".png"),
    "video": (".mp4",),
    "webcam": (),
}


def target_of(source: Source) -> str:
    """The name of a source's annotated copy in the output folder.

    It is the source's own, with .png or .mp4 behind it where OpenCV writes no such files (well).
    """
    if source.name.lower().endswith(_AS_THEY_ARE[source.kind]):
        return source.name
    return source.name + (".png" if source.kind == "image" else ".mp4")


def check_targets(found: Found, folder: Path, overwrite: bool) -> None:
    """Raise ValueError where writing would destroy something, or cannot be done.

    Args:
        overwrite: the copies of an earlier demo may be replaced; inputs never are.
    """
    folder = Path(os.path.abspath(folder.expanduser()))
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise UserError(f"--output: {there} is no folder", "name another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--output: {there} cannot be written to", "name another folder")
    names = [IMAGES, RESULTS, *map(target_of, found.sources)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"--input: two files would both be written to {shortened(twice)}")
    _check_inputs(found, folder, names)
    old = [name for name in names if os.path.lexists(folder / name)]
    if old and not overwrite:
        raise UserError(
            f"--output: {folder} already has {len(old)} of the files that would be written: "
            f"{shortened(old)}",
            "name another folder, or add --overwrite",
        )


def _check_inputs(found: Found, folder: Path, names: Sequence[str]) -> None:
    """Refuse to write over an input, or where copies would be taken for inputs the next time."""
    real = Path(os.path.realpath(folder))
    for given in found.folders:
        if real.is_relative_to(os.path.realpath(given)):
            raise UserError(
                f"--output: {folder} lies in the --input folder {given}, and copies would be taken "
                "for images the next time",
                "name a folder outside",
            )
    inputs = {os.path.realpath(source.path) for source in found.sources}
    lost = [name for name in names if os.path.realpath(folder / name) in inputs]
    if lost:
        raise UserError(
            f"--output: {folder} holds the input, and {shortened(lost)} would be overwritten",
            "name another folder",
        )


_JPEG_QUALITY = 95  # of 100


class Sink:
    """Writes annotated pictures below `folder`; a source's frames must come one after the other."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._source: Source | None = None
        self._writer: FrameWriter | None = None
        self._start = 0.0

    def write(self, picture: Picture, annotated: np.ndarray) -> None:
        """
        Args:
            annotated: the pixels to write, (H, W, 3), uint8, BGR.

        Raises:
            SaveError: they cannot be written.
        """
        if picture.source != self._source:
            self.close()
        path = self.folder / target_of(picture.source)
        if picture.source.kind == "image":
            _write_image(path, annotated)
            return
        if self._writer is None:
            self._source, self._writer = picture.source, FrameWriter(path, picture.rate)
            self._start = time.monotonic()
        for _ in range(self._repeats(picture)):
            self._writer.write(annotated)

    def _repeats(self, picture: Picture) -> int:
        """How often a frame is written: a camera's for as long as the next one took to come."""
        if picture.source.kind != "webcam":
            return 1
        due = round((time.monotonic() - self._start) * picture.rate)
        return max(1, due - self._writer.number)

    def close(self) -> None:
        """Complete the video that is being written, if there is one."""
        if self._writer is not None:
            self._writer.close()
        self._source = self._writer = None


def _write_image(path: Path, pixels: np.ndarray) -> None:
    _, data = cv2.imencode(path.suffix.lower(), pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    with as_save_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
