"""Annotated copies: an image per image, and a video per video or webcam."""

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
_WRITTEN_SUFFIXES = {"image": (".jpg", ".jpeg", ".png"), "video": (".mp4",), "webcam": ()}
_JPEG_QUALITY = 95  # of 100


def target_of(source: Source) -> str:
    """The name of a source's annotated copy in the output folder.

    It is the name of the source, followed by .png or .mp4 if we write no files of its own type.
    """
    if source.name.lower().endswith(_WRITTEN_SUFFIXES[source.kind]):
        return source.name
    return source.name + (".png" if source.kind == "image" else ".mp4")


def check_targets(found: Found, folder: Path, overwrite: bool) -> None:
    """Raise UserError if a copy would replace another file, or cannot be written.

    Args:
        overwrite: allows to replace the files of an earlier demo, but never an input.
    """
    folder = Path(os.path.abspath(folder.expanduser()))
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise UserError(f"--output: {existing} is not a folder", "name another")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"--output: {existing} cannot be written to", "name another folder")
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
    """Raise UserError if a copy would replace an input, or would be an input of the next demo."""
    real = Path(os.path.realpath(folder))
    for given in found.folders:
        if real.is_relative_to(os.path.realpath(given)):
            raise UserError(
                f"--output: {folder} lies in the --input folder {given}, so that the next demo "
                "would read the copies as images",
                "name a folder outside",
            )
    inputs = {os.path.realpath(source.path) for source in found.sources}
    lost = [name for name in names if os.path.realpath(folder / name) in inputs]
    if lost:
        raise UserError(
            f"--output: {folder} holds the input, and {shortened(lost)} would be overwritten",
            "name another folder",
        )


class Sink:
    """Writes annotated copies below `folder`. The frames of one source must follow each other."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._source: Source | None = None
        self._writer: FrameWriter | None = None
        self._start = 0.0

    def write(self, picture: Picture, annotated: np.ndarray) -> None:
        """Write the copy of an image, or add a frame to that of a video.

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
        repeats = 1
        if picture.source.kind == "webcam":  # a frame stays until the next one, at a fixed rate
            due = round((time.monotonic() - self._start) * picture.rate)
            repeats = max(1, due - self._writer.number)
        for _ in range(repeats):
            self._writer.write(annotated)

    def close(self) -> None:
        """Complete the current video, if there is one."""
        if self._writer is not None:
            self._writer.close()
        self._source = self._writer = None


def _write_image(path: Path, pixels: np.ndarray) -> None:
    _, data = cv2.imencode(path.suffix.lower(), pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    with as_save_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
