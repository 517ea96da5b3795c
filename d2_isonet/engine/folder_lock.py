"""The lock on OUTPUT_DIR: two runs in one folder would overwrite and move each other's files."""

import logging
import os
import platform
from datetime import datetime
from pathlib import Path

from detectron2.utils import comm
from filelock import BaseFileLock, FileLock, Timeout

from d2_isonet.utils.messages import UserError

logger = logging.getLogger(__name__)
NAME = "run.lock"
_SECONDS = 10.0  # in which the loading processes of a killed run notice that and release its lock
_held: dict[str, BaseFileLock] = {}


def lock_folder(folder: str | os.PathLike) -> None:
    """Let no other run use `folder` until this process ends or calls `unlock_folder`.

    The main process locks it; every process must call this. Repeated calls do nothing. The system
    releases the lock of a process that dies. If the disk allows no locks, a warning is logged.

    Raises:
        UserError: another run has the lock. All processes raise it.
    """
    problem = _lock(Path(folder).resolve()) if comm.is_main_process() and str(folder) else ""
    problem = comm.all_gather(problem)[0]
    if problem:
        raise UserError(problem, "wait until it has ended, or set OUTPUT_DIR to another folder")


def unlock_folder(folder: str | os.PathLike) -> None:
    lock = _held.pop(str(Path(folder).resolve()), None)
    if lock is not None:
        lock.release()


def _lock(folder: Path) -> str:
    """Take the lock; return who has it, "" if it is this process now."""
    file = folder / NAME
    if str(folder) in _held:
        return ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            owner = file.read_text(encoding="utf-8").strip() or "another process"
            if not _is_of_dead_process(owner):
                return f"OUTPUT_DIR {folder} is in use by {owner}"
            lock.acquire(timeout=_SECONDS)
        _held[str(folder)] = lock
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        file.write_text(f"process {os.getpid()} on {platform.node()}, started {now}\n")
    except Timeout:
        return f"OUTPUT_DIR {folder} is in use by the loading processes of {owner}, which has died"
    except (OSError, NotImplementedError) as error:
        logger.warning(f"{file} cannot be locked ({error}): start no other run in this folder")
    return ""


def _is_of_dead_process(owner: str) -> bool:
    words = owner.replace(",", "").split()
    if len(words) < 4 or words[3] != platform.node() or not words[1].isdecimal():
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # a process of another user
        pass
    return False
