"""Annotated copies: an image file each, or the video that a source's frames make."""

import time
from pathlib import Path

import cv2
import numpy as np

from d2_isonet.utils.files import SaveError

from .sources import Source
from .streams import Picture
from .targets import target_of
from .videos import FrameWriter

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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise SaveError(f"{path} could not be written: {error.strerror}") from error
