"""Writes files whole or not at all, continues without a file, and reads only regular files."""

import contextlib
import errno
import json
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from .messages import UserError

logger = logging.getLogger(__name__)
T = TypeVar("T")
FilePath = str | os.PathLike
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, a quota, a limit of file sizes


class SaveError(UserError, OSError):
    """A file could not be written; the message names the file and the reason."""


@contextlib.contextmanager
def as_save_error(path: FilePath, only_full_disk: bool = False) -> Iterator[None]:
    """Turn an OSError, or only that of a full disk, into a SaveError that names `path`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        is_other = only_full_disk and cause is not None and cause.errno not in _FULL_DISK
        if cause is None or isinstance(error, SaveError) or is_other:
            raise
        raise SaveError(f"{path} could not be written: {cause.strerror or cause}") from error


def _os_error(error: BaseException | None) -> OSError | None:
    """The OSError behind `error`, which torch's writer wraps into a RuntimeError."""
    while isinstance(error, RuntimeError):
        error = error.__context__
    return error if isinstance(error, OSError) else None


@contextlib.contextmanager
def tolerate(path: FilePath, consequence: str, only_full_disk: bool = False) -> Iterator[None]:
    """Continue without `path` if it cannot be written: log the reason and `consequence`.

    With `only_full_disk`, every other OSError is raised.
    """
    try:
        with as_save_error(path, only_full_disk):
            yield
    except SaveError as error:
        logger.warning(f"{error}. {consequence}")


def write_when_possible(write: Callable[[], T], attempts: int, wait: float = 60.0) -> T:
    """Call `write` until it raises no SaveError, and return its result.

    Args:
        attempts: number of calls; the last one raises its SaveError.
        wait: seconds between two calls.
    """
    for left in range(attempts - 1, 0, -1):
        try:
            return write()
        except SaveError as error:
            logger.warning(f"{error}. Trying again in {wait:g} s, at most {left} times; free some")
            time.sleep(wait)
    return write()


def write_complete(
    path: FilePath,
    save: Callable[[BinaryIO], object],
    find_damage: Callable[[Path], str | None] = lambda path: None,
    content: Mapping | Sequence = (),
) -> None:
    """Write a file so that `path` is at every moment the old file or the whole new one.

    The new file is written beside it, flushed to the disk, read back and checked, then renamed.

    Args:
        save: writes the content to an open file.
        find_damage: returns what is wrong with the written file, None for a good one.
        content: its tensors decide how much free space is required before writing.

    Raises:
        SaveError: the disk has no room, or the file cannot be written. No part of it stays.
    """
    path = Path(path)
    if content:
        _check_room(path, content)
    partial = path.with_name(f"{path.name}.partial")
    with as_save_error(path):
        try:
            with open(partial, "wb") as file:
                save(file)
                file.flush()
                os.fsync(file.fileno())
            problem = find_damage(partial)
            if problem:
                raise OSError(errno.EIO, f"read back, it {problem}")
            os.replace(partial, path)
            _flush_folder(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_text(path: FilePath, text: str) -> None:
    """Replace the file at `path`, as `write_complete` does; raises SaveError."""
    write_complete(path, lambda file: file.write(text.encode()))


def _check_room(path: Path, content: Mapping | Sequence) -> None:
    # 1 MB for names, shapes and the optimizer's settings beside the tensors
    needed = bytes_of(content) + (1 << 20)
    with as_save_error(path):
        free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise SaveError(
            f"{path} was not written: it needs {needed / 1e6:.0f} MB, its disk has "
            f"{free / 1e6:.0f} MB left"
        )


def bytes_of(content: Any) -> int:
    """The number of bytes of all tensors in nested containers."""
    if isinstance(content, Mapping | list | tuple):
        return sum(map(bytes_of, content.values() if isinstance(content, Mapping) else content))
    return content.nbytes if hasattr(content, "element_size") else 0


def _flush_folder(folder: Path) -> None:
    """Bring the rename itself to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_NO_FILES = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def why_not_regular(path: str | os.PathLike, most_bytes: int | None = None) -> str:
    """Why `path` must not be opened: "it is a FIFO, not a file", or larger; "" if it may be.

    Opening a FIFO waits for a writer, and reading a device need not end. A link is followed.

    Args:
        most_bytes: limit of the file's size; None for no limit.

    Raises:
        OSError: there is no such file (a broken link, a loop of links), or it is out of reach.
        ValueError: the path has a null character.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        return f"it is {_NO_FILES.get(stat.S_IFMT(status.st_mode), 'special')}, not a file"
    if most_bytes is not None and status.st_size > most_bytes:
        return f"it has {status.st_size / 1e6:.3g} MB, more than {most_bytes / 1e6:.3g} MB"
    return ""


def read_regular(path: str | os.PathLike, most_bytes: int) -> bytes:
    """The content of a regular file of at most `most_bytes`; raises UserError for another one."""
    reason = why_not_regular(path, most_bytes)
    if reason:
        raise UserError(f"{path} cannot be read: {reason}", "give a regular file")
    with open(path, "rb") as file:
        return file.read(os.fstat(file.fileno()).st_size)


MOST_RECORD_BYTES = 1 << 25  # of a json that describes a run, or lists classes
_MOST_DIGITS = 18  # of a whole number that fits 64 bits


def read_json(path: str | os.PathLike, most_bytes: int = MOST_RECORD_BYTES) -> Any:
    """The content of a json file; raises UserError for no regular file, and as `parse_json`."""
    return parse_json(read_regular(path, most_bytes))


def parse_json(text: str | bytes) -> Any:
    """The value in `text`. Whatever is wrong with it is a ValueError.

    Numbers must fit 64 bits: longer ones fail in whatever computes with them.
    """
    try:
        return json.loads(text, parse_int=_whole_number)
    except RecursionError as error:
        raise ValueError("its lists are nested too deeply") from error


def _whole_number(text: str) -> int:
    if len(text) > _MOST_DIGITS and (len(text) > _MOST_DIGITS + 2 or abs(int(text)) >= 1 << 63):
        raise ValueError(f"it has the number {text[:20]}... of {len(text.lstrip('-'))} digits")
    return int(text)
