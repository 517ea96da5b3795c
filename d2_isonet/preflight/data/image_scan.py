"""Reads image files for their size, mode and damage: in parallel, and once until they change."""

import contextlib
import functools
import hashlib
import os
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tqdm import tqdm

from d2_isonet.data.image_file import (
    MOST_PIXELS,
    UnreadableImage,
    is_deep,
    opened,
    orientation_of,
    read_file,
)
from d2_isonet.utils.messages import MissingFileError

from .cache import PreflightCache, file_stamp

MISSING = "there is no such file"
_BATCH = 512  # files between two writes to the cache
_LARGE = 25_000_000  # pixels; only one thread at a time decodes an image of more
_one_large = threading.Lock()


class ImageFile(NamedTuple):
    """What reading an image file tells.

    Args:
        error: why the file cannot be read; "" if it can.
        width, height: pixels as they are stored, before the EXIF orientation is applied.
        mode: the mode of Pillow.
        orientation: the number of EXIF; 1 is upright, from 5 on width and height are exchanged.
        digest: hash of the content.
        pixels: their number, if it is above the limit; else 0.
    """

    error: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    orientation: int = 1
    digest: str = ""
    pixels: int = 0

    @property
    def has_deep_pixels(self) -> bool:
        """Whether a conversion to 8 bits would clip (almost all of it to white)."""
        return is_deep(self.mode)

    def is_within(self, most_pixels: int) -> bool:
        """Whether this is also what a look with that limit tells."""
        return not self.pixels and self.width * self.height <= most_pixels

    def upright_size(self) -> tuple[int, int]:
        """Width and height once the EXIF orientation is applied."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


def look_at(path: str, most_pixels: int = MOST_PIXELS) -> ImageFile:
    """Read and decode one file of at most `most_pixels` (INPUT.MAX_IMAGE_PIXELS)."""
    digest = ""
    try:
        data = read_file(path, most_pixels)
        digest = hashlib.blake2b(data, digest_size=16).hexdigest() if data else ""
        return _decode(path, data, most_pixels)._replace(digest=digest)
    except MissingFileError:
        return ImageFile(MISSING)
    except UnreadableImage as error:
        return ImageFile(error.reason, digest=digest, pixels=error.pixels)


def _decode(path: str, data: bytes, most_pixels: int) -> ImageFile:
    with opened(path, data, most_pixels) as image:
        size, mode, orientation = image.size, image.mode, orientation_of(image)
        # Decoding an eighth of the pixels of a JPEG takes half the time and reads all its bytes.
        is_reduced = image.draft(None, (1, 1)) is not None
        with _one_large if size[0] * size[1] > _LARGE else contextlib.nullcontext():
            image.load()
        size = size if is_reduced else image.size
        is_turned_by_pillow = orientation >= 5 and orientation_of(image) != orientation
        return ImageFile("", *(size[::-1] if is_turned_by_pillow else size), mode, orientation)


def look_at_all(
    paths: Iterable[str], title: str = "images", most_pixels: int = MOST_PIXELS
) -> dict[str, ImageFile]:
    """Read every file in parallel threads; a progress bar shows if it takes long.

    The results are cached by path, size and time of change, so that the next call takes no time.
    """
    stamps = {path: file_stamp(path) for path in paths}
    look = functools.partial(look_at, most_pixels=most_pixels)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    interval = 0.5 if sys.stderr.isatty() else 30
    with contextlib.closing(PreflightCache()) as cache:
        kept = {path: cache.get(os.path.abspath(path), stamp) for path, stamp in stamps.items()}
        # Rows without `pixels` are of an earlier version, which turned a TIFF twice.
        fields = len(ImageFile._fields)
        looks = {p: ImageFile(*x) for p, x in kept.items() if x and (len(x) == fields or x[4] == 1)}
        found = {path: file for path, file in looks.items() if file.is_within(most_pixels)}
        left = [path for path in stamps if path not in found]
        bar = tqdm(total=len(left), desc=title, unit=" files", mininterval=interval, delay=3)
        with ThreadPoolExecutor(threads) as pool, bar:
            for first in range(0, len(left), _BATCH):
                batch = left[first : first + _BATCH]
                for path, file in zip(batch, pool.map(look, batch), strict=True):
                    found[path] = file
                    bar.update()
                cache.put((os.path.abspath(path), stamps[path], found[path]) for path in batch)
    return found
