"""Files that cannot be written: told with their name, waited for or done without."""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
logger = logging.getLogger(__name__)


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
