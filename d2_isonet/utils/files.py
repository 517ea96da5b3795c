"""Files that cannot be written: told with their name, waited for or done without."""

import contextlib
import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch

logger = logging.getLogger(__name__)
T = TypeVar("T")


class SaveError(OSError):
    """A file that could not be written; the message names it and says why."""


def disk_error(error: BaseException | None) -> OSError | None:
    """The OSError behind `error`, which torch's writer may have wrapped; None for any other."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def is_full_disk(error: OSError) -> bool:
    """Whether the disk, a quota or a limit of the file's size is at fault."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def as_save_error(path: str | os.PathLike) -> Iterator[None]:
    """Turn an OSError of writing `path` by other code into a SaveError that names it."""
    try:
        yield
    except SaveError:
        raise
    except OSError as error:
        raise SaveError(f"{path} could not be written: {error.strerror or error}") from error


@contextlib.contextmanager
def warned(consequence: str) -> Iterator[None]:
    """A SaveError inside is a warning that ends with `consequence`: it goes on without the file."""
    try:
        yield
    except SaveError as error:
        logger.warning(f"{error}. {consequence}")


def write_when_possible(write: Callable[[], T], attempts: int, wait: float = 60.0) -> T:
    """What `write` returns, called until it raises no SaveError; raises the last of them.

    Args:
        wait: seconds between two attempts.
    """
    for left in range(attempts - 1, 0, -1):
        try:
            return write()
        except SaveError as error:
            logger.warning(f"{error}. Tried again in {wait:g} s, {left} times at most; free some")
            time.sleep(wait)
    return write()


# What a zip of tensors has beside them: names, shapes, the optimizer's settings.
_OVERHEAD = 1 << 20  # bytes


def write_complete(
    path: str | os.PathLike,
    save: Callable[[BinaryIO], object],
    find_damage: Callable[[Path], str | None],
    content: Mapping | Sequence,
) -> None:
    """Write a file so that `path` is at every moment the old file or the whole new one.

    To a file beside it, flushed to the disk, read back and checked, then renamed.

    Args:
        save: writes to an open file.
        find_damage: of the written file, None for none.
        content: whose tensors tell how much room is needed.

    Raises:
        SaveError: there is no room, or the file cannot be written; nothing is left of it.
    """
    path = Path(path)
    _check_room(path, content)
    partial = path.with_name(f"{path.name}.partial")
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
    except BaseException as error:
        partial.unlink(missing_ok=True)
        cause = disk_error(error)
        if cause is None:
            raise
        raise SaveError(f"{path} could not be written: {cause.strerror or cause}") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Replace the file at `path` as `write_checkpoint` does; raises SaveError."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _flush_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SaveError(f"{path} could not be written: {error.strerror}") from error


def _check_room(path: Path, content: Mapping | Sequence) -> None:
    needed = bytes_of(content) + _OVERHEAD
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise SaveError(f"{path} could not be written: {error.strerror}") from error
    if free < needed:
        raise SaveError(
            f"{path} was not written: it needs {needed / 1e6:.0f} MB, its disk has "
            f"{free / 1e6:.0f} MB left"
        )


def bytes_of(content: Any) -> int:
    """Bytes of all tensors in nested containers."""
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, Mapping):
        content = content.values()
    elif not isinstance(content, list | tuple):
        return 0
    return sum(bytes_of(x) for x in content)


def _flush_folder(folder: Path) -> None:
    """The rename itself reaches the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
