"""One cell: train until a learning rate converges, in this process, and store the result."""

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
from collections.abc import Iterator
from pathlib import Path

from .cells import (
    REPOSITORY,
    Cell,
    Folders,
    arguments,
    command,
    read_result,
    settings,
    write_result,
)
from .data import data_arguments
from .measures import has_converged, measures, shifts


def run_cell(
    cell: Cell, seed: int, folders: Folders, commit: str = "", threads: int = 0
) -> dict | None:
    """Train with the learning rates that are to be tried, store the best and return it.

    A result is stored also where none converges: that is one of the answers. None where another
    process is at this cell.
    """
    with _alone(folders.lock(cell, seed)) as alone:
        if not alone:
            return None
        start = time.time()
        attempts = _attempts(cell, seed, folders, threads)
        best = max(filter(_converged, attempts), key=_accuracy, default={})
        before = (read_result(folders, cell, seed) or {}).get("seconds", 0)
        result = {
            "cell": cell.name,
            "seed": seed,
            "measures": best.get("measures", {}),
            "learning_rate": best.get("learning_rate"),
            "attempts": attempts,
            "seconds": round(before + time.time() - start, 1),
            "commit": commit,
            **_machine(),
        }
        write_result(folders, cell, seed, result)
        return result


def _converged(attempt: dict) -> bool:
    return attempt["converged"]


def _accuracy(attempt: dict) -> float:
    return attempt["measures"].get("top-1", 0.0)


_LOGGERS = ("detectron2", "fvcore", "d2_isonet")
_SIGNS_OF_DIVERGENCE = ("FloatingPointError", "weights have diverged", "raining has diverged")


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Whether no other process holds `lock`; a killed one holds nothing."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
        lock.unlink(missing_ok=True)


def _attempts(cell: Cell, seed: int, folders: Folders, threads: int) -> list[dict]:
    """One for each learning rate that is to be tried; none without weights to start from."""
    before = read_result(folders, cell.weights, seed) if cell.weights else None
    if before and not before["measures"]:
        return []
    rates = _learning_rates(cell, seed, folders)
    stored = read_result(folders, cell, seed) or {"attempts": []}
    attempts = [attempt for attempt in stored["attempts"] if attempt["learning_rate"] in rates]
    if is_complete(cell, seed, folders):  # its weights are needed, and were not kept
        best = stored["learning_rate"]
        again = _attempt(cell, seed, folders, best, threads)
        return [again if attempt["learning_rate"] == best else attempt for attempt in attempts]
    for rate in rates[len(attempts) :]:
        if _is_over(attempts, seed):
            break
        attempts.append(_attempt(cell, seed, folders, rate, threads))
    return attempts


def is_complete(cell: Cell, seed: int, folders: Folders) -> bool:
    """Whether the stored result has nothing left to try."""
    result = read_result(folders, cell, seed)
    if result is None:
        return False
    rates, tried = _learning_rates(cell, seed, folders), result["attempts"]
    over = _is_over(tried, seed) or {attempt["learning_rate"] for attempt in tried} >= set(rates)
    return over or not tried  # nothing was tried where the weights it needs have diverged


def _is_over(attempts: list[dict], seed: int) -> bool:
    """Seed 1 searches until a learning rate gives less than a larger one, others until one
    converges.
    """
    found = [_accuracy(attempt) for attempt in attempts if attempt["converged"]]
    if seed > 1:
        return bool(found)
    return len(found) > 1 and found[-1] < max(found)


def _learning_rates(cell: Cell, seed: int, folders: Folders) -> tuple[float | None, ...]:
    """All for seed 1 (and where it was not run); for others its best and, should they diverge,
    the smaller ones; the smallest where seed 1 found none.
    """
    rates = cell.learning_rates or (None,)
    first = read_result(folders, cell, 1) if seed > 1 else None
    if not first or rates == (None,):
        return rates
    best = first["learning_rate"] if first["measures"] else rates[-1]
    return tuple(rate for rate in rates if rate <= best)


def _attempt(cell: Cell, seed: int, folders: Folders, rate: float | None, threads: int) -> dict:
    words = arguments(cell, seed, folders, data_arguments(cell, folders.data), rate)
    folder = folders.training(cell, seed, rate)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    code = _run_script(cell.script, words, folder / "output.log", threads)
    log = (folder / "output.log").read_text(errors="replace")
    diverged = bool(code) and _has_diverged(folder, log)
    if code and not diverged:
        tail = "\n".join(log.splitlines()[-15:])
        raise RuntimeError(f"failed, see {folder}/output.log:\n{tail}")
    (folder / "cell.json").write_text(json.dumps(settings(cell)))
    found = {} if diverged else measures(cell, folder)
    return {
        "learning_rate": rate,
        "command": command(cell, words),
        "measures": found,
        "diverged": diverged,
        "converged": not diverged and has_converged(cell, found),
        "shifts": shifts(folder),
    }


def _has_diverged(folder: Path, log: str) -> bool:
    """Whether what failed had met a loss, a gradient or a result that is not finite."""
    stopped = any(folder.glob("non_finite_*.json"))
    return stopped or any(sign in log for sign in _SIGNS_OF_DIVERGENCE)


def _run_script(script: str, words: list[str], log: Path, threads: int) -> int:
    """The script's exit code; everything it prints goes to `log`."""
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
        except FloatingPointError as error:
            print(f"FloatingPointError: {error}")
            return 1
        finally:
            for name in _LOGGERS:  # the next attempt would write through this one's handlers too
                logging.getLogger(name).handlers.clear()
    return 0


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send this process's stdout and stderr, those of libraries included, to a file."""
    saved = [os.dup(1), os.dup(2)]
    with (
        open(path, "w") as file,
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
    """Of the code that is run; "+changes" where files differ from it."""
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
