"""Reads frames of videos and webcams, and writes videos, with OpenCV."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from d2_isonet.utils.files import SaveError, as_save_error, why_not_regular
from d2_isonet.utils.messages import UserError

# NoVideo reports what the user needs of the log lines of ffmpeg and OpenCV
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"\xef\xbb\xbf#EXTM3U", b"<?xml", b"<MPD", b"v=0")
_USUAL_RATE = 25.0  # frames per second, if a file or camera does not give its rate


class NoVideo(UserError):
    """The file is not a video, or there is no such camera; the message says which."""


class FrameReader:
    """Iterates over the frames (H, W, 3), uint8, BGR, of a video file or a camera.

    `rate` is in frames per second. `announced` is the number of frames that the file claims to
    have, None if it does not say. `number` counts the frames read so far.

    Args:
        source: path of a file, or the number of a camera.

    Raises:
        NoVideo: the source cannot be opened.
    """

    def __init__(self, source: str | int):
        if isinstance(source, str) and (problem := _content_problem(source)):
            raise NoVideo(problem)
        self._capture = cv2.VideoCapture(source)
        if not self._capture.isOpened():
            raise NoVideo(_why_not_open(source))
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # so that a camera gives its current frame
        self.rate = self._property(cv2.CAP_PROP_FPS) or _USUAL_RATE
        count = None if isinstance(source, int) else self._property(cv2.CAP_PROP_FRAME_COUNT)
        self.announced = round(count) if count else None
        self.number = 0

    def _property(self, name: int) -> float:
        """A property of the stream; 0 if it has none, which ffmpeg shows by various numbers."""
        value = self._capture.get(name)
        return value if math.isfinite(value) and 0 < value < 1e7 else 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            is_read, frame = self._capture.read()
            if not is_read:
                return
            self.number += 1
            yield frame

    def close(self) -> None:
        self._capture.release()

    def breaks_off(self) -> bool:
        """Whether clearly fewer frames were read than announced; files may miscount a few."""
        missing = (self.announced or 0) - self.number
        return missing > max(2, 0.02 * self.number)


def _content_problem(path: str) -> str:
    """Why OpenCV must not open a file, "" if it may: a list of others could name any file."""
    if problem := why_not_regular(path):
        return problem
    with open(path, "rb") as file:
        head = file.read(64).lstrip()
    if head.startswith(_PLAYLISTS):
        return "it is a list of other files; name the video itself"
    return "" if head else "it is empty (0 bytes)"


def _why_not_open(source: str | int) -> str:
    if isinstance(source, str):
        return "it cannot be opened as a video: it is damaged, or of a type that OpenCV cannot read"
    cameras = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video*"))
    there = f"there may be {', '.join(cameras)}" if cameras else "none is connected"
    return f"camera {source} cannot be opened ({there}); number them as --input webcam0, webcam1"


class FrameWriter:
    """A video file (MPEG-4 in .mp4), `rate` frames per second, named `path` when it is complete.

    Raises (when frames are written):
        SaveError: the file cannot be written.
    """

    def __init__(self, path: Path, rate: float):
        self.path = path
        self.rate = rate
        self.number = 0
        self._partial = path.with_name(f"{path.stem}.partial{path.suffix}")
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3), uint8, BGR, resized to the size of the first frame.

        MPEG-4 needs an even height and width, so that an odd last row or column is repeated.
        """
        odd = [n % 2 for n in frame.shape[:2]]
        frame = cv2.copyMakeBorder(frame, 0, odd[0], 0, odd[1], cv2.BORDER_REPLICATE)
        size = (frame.shape[1], frame.shape[0])
        if self._writer is None:
            self._writer, self._size = self._open(size), size
        self._writer.write(frame if size == self._size else cv2.resize(frame, self._size))
        self.number += 1

    def _open(self, size: tuple[int, int]) -> cv2.VideoWriter:
        with as_save_error(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        code = cv2.VideoWriter.fourcc(*"mp4v")  # every OpenCV has it, unlike H.264
        writer = cv2.VideoWriter(str(self._partial), code, self.rate, size)
        if not writer.isOpened():
            raise SaveError(f"{self.path} could not be written as {size[0]} x {size[1]} of MPEG-4")
        return writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()
            os.replace(self._partial, self.path)
