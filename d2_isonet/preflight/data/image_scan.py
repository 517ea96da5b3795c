"""Reads image files for their size, mode and damage: in parallel, and once until they change."""

import hashlib
import io
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

from detectron2.utils.file_io import PathManager
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from .cache import PreflightCache, file_stamp

MISSING = "there is no such file"
_ORIENTATION = 0x0112  # EXIF
_BATCH = 512  # files between two writes to the cache


class ImageFile(NamedTuple):
    """What reading an image file tells.

    Args:
        error: why the file cannot be read; "" if it can.
        width, height: pixels as they are stored, before the EXIF orientation is applied.
        mode: the mode of Pillow.
        orientation: the number of EXIF; 1 is upright, from 5 on width and height are exchanged.
        digest: hash of the content.
    """

    error: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    orientation: int = 1
    digest: str = ""

    @property
    def has_deep_pixels(self) -> bool:
        """Whether a conversion to 8 bits would clip (almost all of it to white)."""
        return self.mode.startswith(("I", "F"))

    def upright_size(self) -> tuple[int, int]:
        """Width and height once the EXIF orientation is applied."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


def look_at(path: str) -> ImageFile:
    """Read and decode one file."""
    try:
        with PathManager.open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        return ImageFile(MISSING if missing else str(error))
    if not data:
        return ImageFile("0 bytes")
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    try:
        return _decode(data)._replace(digest=digest)
    except UnidentifiedImageError:
        return ImageFile(f"no image of a kind that Pillow knows, {len(data)} bytes", digest=digest)
    except Exception as error:  # Pillow's plug-ins raise anything on a damaged file
        return ImageFile(str(error) or type(error).__name__, digest=digest)


def _decode(data: bytes) -> ImageFile:
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        orientation = image.getexif().get(_ORIENTATION, 1)
        mode = image.mode
        # Decoding an eighth of the pixels of a JPEG takes half the time and reads all its bytes.
        image.draft(None, (1, 1))
        image.load()
    orientation = orientation if orientation in range(1, 9) else 1
    return ImageFile("", width, height, mode, orientation)


def look_at_all(paths: Iterable[str], title: str = "images") -> dict[str, ImageFile]:
    """Read every file in parallel threads; a progress bar shows if it takes long.

    The results are cached by path, size and time of change, so that the next call takes no time.
    """
    stamps = {path: file_stamp(path) for path in paths}
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    interval = 0.5 if sys.stderr.isatty() else 30
    with closing(PreflightCache()) as cache:
        kept = {path: cache.get(os.path.abspath(path), stamp) for path, stamp in stamps.items()}
        found = {path: ImageFile(*values) for path, values in kept.items() if values}
        left = [path for path in stamps if path not in found]
        bar = tqdm(total=len(left), desc=title, unit=" files", mininterval=interval, delay=3)
        with ThreadPoolExecutor(threads) as pool, bar:
            for first in range(0, len(left), _BATCH):
                batch = left[first : first + _BATCH]
                for path, file in zip(batch, pool.map(look_at, batch), strict=True):
                    found[path] = file
                    bar.update()
                cache.put((os.path.abspath(path), stamps[path], found[path]) for path in batch)
    return found
