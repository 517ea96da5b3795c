"""Runs one cell in this process: trains until a learning rate converges, stores the result."""

import contextlib
import fcntl
import functools
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from d2_isonet.utils.files import write_text

from .cells import Cell, Folders, arguments, command, made_with, read_result, write_result
from .search import has_converged, is_complete, lacks_weights, measures, rates_of, search, shifts
from .small import data_arguments
from .training_run import REPOSITORY

# In a training's folder: its settings, and its attempt once it is finished.
_MADE_WITH, _FINISHED = "cell.json", "attempt.json"
_LOGGERS = ("detectron2", "fvcore", "d2_isonet")
_SIGNS_OF_DIVERGENCE = ("FloatingPointError", "weights have diverged", "raining has diverged")


def run_cell(
    cell: Cell, seed: int, folders: Folders, commit: str = "", threads: int = 0, again: bool = False
) -> dict | None:
    """Train with the learning rates left to try; store the best result and return it.

    If none converges, that is a result too. If another process has stored a complete result in the
    meantime, this returns it; if another process is running the cell, None. With `again`, it trains
    once more if the result is complete but its weights were not kept.
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
        train = functools.partial(_attempt, cell, seed, folders, commit, threads)
        attempts = _attempts(cell, seed, folders, train)
        counting, _ = search(attempts, rates_of(cell, seed, folders), seed)
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
    return bool(_finished(folders.weights(cell, seed), made_with(folders, cell, seed)))


def _finished(folder: Path, made: dict) -> dict:
    """The attempt that a training with these settings has finished in `folder`, or {}."""
    path = folder / _FINISHED
    return json.loads(path.read_text()) if _is_of(folder, made) and path.is_file() else {}


def _is_of(folder: Path, made: dict) -> bool:
    record = folder / _MADE_WITH
    return record.is_file() and json.loads(record.read_text()) == made


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Yields whether this process holds `lock`; the lock of a killed process is free."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        alone = _is_taken(file, lock)
        try:
            yield alone
        finally:
            if alone:
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


def _attempts(cell: Cell, seed: int, folders: Folders, train: Callable) -> list[dict]:
    """The stored attempts and one for each learning rate left; [] if its weights have failed."""
    if lacks_weights(cell, seed, folders):
        return []
    rates = rates_of(cell, seed, folders)
    stored = read_result(folders, cell, seed) or {"attempts": []}
    attempts = {a["learning_rate"]: {"commit": stored["commit"], **a} for a in stored["attempts"]}
    if is_complete(cell, seed, folders):  # its weights are needed but were not kept
        attempts[stored["learning_rate"]] = train(stored["learning_rate"])
    while left := search([*attempts.values()], rates, seed)[1]:
        attempts[left[0]] = train(left[0])
    return sorted(attempts.values(), key=lambda a: a["learning_rate"] or 0, reverse=True)


def _attempt(
    cell: Cell, seed: int, folders: Folders, commit: str, threads: int, rate: float | None
) -> dict:
    """Train with `rate`, or take the attempt that an earlier, killed run has finished."""
    folder, made = folders.training(cell, seed, rate), made_with(folders, cell, seed)
    if attempt := _finished(folder, made):
        return attempt
    words = arguments(cell, seed, folders, data_arguments(cell, folders.data), rate)
    resumed, path = [*_resume(folder, made), *words], folder / "output.log"
    code = _run_script(cell.script, resumed, path, threads)
    log = path.read_text(errors="replace")
    diverged = bool(code) and (
        _met_non_finite(folder) or any(x in log for x in _SIGNS_OF_DIVERGENCE)
    )
    if code and not diverged:
        raise RuntimeError("\n".join([f"failed, see {path}:", *log.splitlines()[-15:]]))
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
    write_text(folder / _FINISHED, json.dumps(attempt, indent=1) + "\n")
    return attempt


def _met_non_finite(folder: Path) -> bool:
    return any(folder.glob("non_finite_*.json"))


def _resume(folder: Path, made: dict) -> list[str]:
    """["--resume"] if the same training has left a checkpoint; else [], with an empty folder."""
    left = (folder / "last_checkpoint").is_file() and _is_of(folder, made)
    if left and not _met_non_finite(folder):
        return ["--resume"]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_text(folder / _MADE_WITH, json.dumps(made, indent=1) + "\n")
    return []


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
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "a"))
        stack.enter_context(contextlib.redirect_stdout(file))
        stack.enter_context(contextlib.redirect_stderr(file))
        for number in (1, 2):
            saved = os.dup(number)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, number)
            os.dup2(file.fileno(), number)
        yield


def current_commit() -> str:
    """The commit of the code that runs; with "+changes" if files differ from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *words]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "d2_isonet", "configs", "tools", "train_net.py")
    return git("rev-parse", "--short", "HEAD") + ("+changes" if changed else "")


def _machine() -> dict:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "machine": gpu or f"CPU, {torch.get_num_threads()} thread(s) of {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
