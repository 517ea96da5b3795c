"""Runs one cell in this process: trains until a learning rate converges, stores the result."""

import contextlib
import fcntl
import json
import logging
import os
import platform
import runpy
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from .cells import Cell, Folders, arguments, command, made_with, read_result, write_result
from .search import (
    best,
    has_converged,
    is_complete,
    lacks_weights,
    left_to_try,
    measures,
    rates_of,
    shifts,
    tried,
)
from .small import data_arguments
from .training_run import REPOSITORY


def run_cell(
    cell: Cell,
    seed: int,
    folders: Folders,
    commit: str = "",
    threads: int = 0,
    again: bool = False,
) -> dict | None:
    """Train with the learning rates left to try; store the best result and return it.

    If none converges, that is a result too. If another process has stored a complete result in the
    meantime, this returns it; if another process is running the cell, None.

    Args:
        again: train once more if the result is complete but its weights were not kept.
    """
    with _alone(folders.lock(cell, seed)) as alone:
        if not alone:
            return None
        stored = read_result(folders, cell, seed)
        whole = is_complete(cell, seed, folders)
        if whole and not (again and stored["measures"] and not has_weights(cell, seed, folders)):
            return stored
        start = time.time()
        made = made_with(folders, cell, seed)  # before another run changes the weights
        attempts = _attempts(cell, seed, folders, commit, threads)
        counting = best(tried(attempts, rates_of(cell, seed, folders), seed))
        result = {
            "cell": cell.name,
            "seed": seed,
            "measures": counting.get("measures", {}),
            "learning_rate": counting.get("learning_rate"),
            "attempts": attempts,
            "seconds": round((stored or {}).get("seconds", 0) + time.time() - start, 1),
            "commit": counting.get("commit", commit),
            **_machine(),
            **made,
        }
        write_result(folders, cell, seed, result)
        return result


def has_weights(cell: Cell, seed: int, folders: Folders) -> bool:
    """Whether the finished training of this cell, with its present settings, is in its folder."""
    folder = folders.weights(cell, seed)
    return _is_of(folder, made_with(folders, cell, seed)) and (folder / _FINISHED).is_file()


# In a training's folder: its settings, and its attempt once it is finished.
_MADE_WITH, _FINISHED = "cell.json", "attempt.json"


def _is_of(folder: Path, made: dict) -> bool:
    record = folder / _MADE_WITH
    return record.is_file() and json.loads(record.read_text()) == made


_LOGGERS = ("detectron2", "fvcore", "d2_isonet")
_SIGNS_OF_DIVERGENCE = ("FloatingPointError", "weights have diverged", "raining has diverged")


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Yields whether this process holds `lock`; the lock of a killed process is free."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        if not _is_taken(file, lock):
            yield False
            return
        try:
            yield True
        finally:
            lock.unlink(missing_ok=True)


def _is_taken(file: TextIO, lock: Path) -> bool:
    """Whether this process locked `file`, and `file` is still the one at this path."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), os.stat(lock))
    except (BlockingIOError, FileNotFoundError):
        return False


def is_locked(lock: Path) -> bool:
    """Whether another process is running the cell of `lock`."""
    try:
        with open(lock) as file:
            return not _is_taken(file, lock)
    except FileNotFoundError:
        return False


def _attempts(cell: Cell, seed: int, folders: Folders, commit: str, threads: int) -> list[dict]:
    """The stored attempts and one for each learning rate left; [] if its weights have failed."""
    if lacks_weights(cell, seed, folders):
        return []
    rates = rates_of(cell, seed, folders)
    stored = read_result(folders, cell, seed) or {"attempts": []}
    attempts = {a["learning_rate"]: {"commit": stored["commit"], **a} for a in stored["attempts"]}
    if is_complete(cell, seed, folders):  # its weights are needed but were not kept
        rate = stored["learning_rate"]
        attempts[rate] = _attempt(cell, seed, folders, rate, commit, threads)
    while left := left_to_try([*attempts.values()], rates, seed):
        attempts[left[0]] = _attempt(cell, seed, folders, left[0], commit, threads)
    return sorted(attempts.values(), key=lambda a: a["learning_rate"] or 0, reverse=True)


def _attempt(
    cell: Cell, seed: int, folders: Folders, rate: float | None, commit: str, threads: int
) -> dict:
    """Train with `rate`, or take the attempt that an earlier, killed run has finished."""
    folder, made = folders.training(cell, seed, rate), made_with(folders, cell, seed)
    if _is_of(folder, made) and (folder / _FINISHED).is_file():
        return json.loads((folder / _FINISHED).read_text())
    words = arguments(cell, seed, folders, data_arguments(cell, folders.data), rate)
    resumed = [*_resume(cell, folder, made), *words]
    code = _run_script(cell.script, resumed, folder / "output.log", threads)
    log = (folder / "output.log").read_text(errors="replace")
    diverged = bool(code) and _has_diverged(folder, log)
    if code and not diverged:
        tail = "\n".join(log.splitlines()[-15:])
        raise RuntimeError(f"failed, see {folder}/output.log:\n{tail}")
    found = {} if diverged else measures(cell, folder)
    attempt = {
        "learning_rate": rate,
        "command": command(cell, words),
        "measures": found,
        "diverged": diverged,
        "converged": not diverged and has_converged(cell, found),
        "shifts": shifts(folder),
        "commit": commit,
    }
    _write_whole(folder / _FINISHED, attempt)
    return attempt


def _resume(cell: Cell, folder: Path, made: dict) -> list[str]:
    """["--resume"] if the same training has left a checkpoint; else [], with an empty folder."""
    diverged = any(folder.glob("non_finite_*.json"))
    if (folder / "last_checkpoint").is_file() and _is_of(folder, made) and not diverged:
        return ["--resume"]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write_whole(folder / _MADE_WITH, made)
    return []


def _write_whole(path: Path, content: dict) -> None:
    """Write a json file that appears complete or not at all."""
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def _has_diverged(folder: Path, log: str) -> bool:
    """Whether a failed training met a loss, gradient or result that is not finite."""
    stopped = any(folder.glob("non_finite_*.json"))
    return stopped or any(sign in log for sign in _SIGNS_OF_DIVERGENCE)


def _run_script(script: str, words: list[str], log: Path, threads: int) -> int:
    """Run the script, write its output to `log`, return its exit code."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    sys.argv = [str(REPOSITORY / script), *words]
    sys.path[:0] = [str(REPOSITORY / "tools"), str(REPOSITORY)]
    with _output_to(log):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        except Exception:
            traceback.print_exc()  # to the log
            return 1
        finally:
            for name in _LOGGERS:  # else the next attempt writes to this log too
                logging.getLogger(name).handlers.clear()
    return 0


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send this process's stdout and stderr, those of libraries included, to a file."""
    saved = [os.dup(1), os.dup(2)]
    with (
        open(path, "a") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)


def current_commit() -> str:
    """The commit of the code that runs; with "+changes" if files differ from it."""
    git = ["git", "-C", str(REPOSITORY)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "d2_isonet", "configs", "tools", "train_net.py"],
        capture_output=True,
        text=True,
    )
    return commit.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def _machine() -> dict:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "machine": gpu or f"CPU, {torch.get_num_threads()} thread(s) of {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
