"""One cell: train until a learning rate converges, in this process, and store the result."""

import contextlib
import fcntl
import json
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
    """Train until one learning rate converges, store the result and return it.

    A result is stored also where none does: that is one of the answers. None where another process
    is at this cell.
    """
    with _alone(folders.lock(cell, seed)) as alone:
        if not alone:
            return None
        start = time.time()
        attempts = _attempts(cell, seed, folders, threads)
        converged = bool(attempts) and attempts[-1]["converged"]
        result = {
            "cell": cell.name,
            "seed": seed,
            "measures": attempts[-1]["measures"] if converged else {},
            "attempts": attempts,
            "shifts": shifts(folders.training(cell.name, seed)),
            "seconds": round(time.time() - start, 1),
            "commit": commit,
            **_machine(),
        }
        write_result(folders, cell, seed, result)
        return result


_SIGNS_OF_DIVERGENCE = ("FloatingPointError", "its weights have diverged")


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
    """One for each learning rate, up to the first that converges; none without weights to use."""
    before = read_result(folders, cell.weights, seed) if cell.weights else None
    if before and not before["measures"]:
        return []
    attempts: list[dict] = []
    for rate in _learning_rates(cell, seed, folders):
        words = arguments(cell, seed, folders, data_arguments(cell, folders.data), rate)
        attempts.append(_attempt(cell, seed, folders, words, rate, threads))
        if attempts[-1]["converged"]:
            break
    return attempts


def _learning_rates(cell: Cell, seed: int, folders: Folders) -> tuple[float | None, ...]:
    """Those to try. The first seed searches; the others begin where it converged.

    Where it did not, they try the smallest alone.
    """
    rates = cell.learning_rates or (None,)
    first = read_result(folders, cell, 1) if seed > 1 else None
    if not first or not first["attempts"]:
        return rates
    last = first["attempts"][-1]
    return rates[rates.index(last["learning_rate"]) :] if last["converged"] else rates[-1:]


def _attempt(
    cell: Cell, seed: int, folders: Folders, words: list[str], rate: float | None, threads: int
) -> dict:
    folder = folders.training(cell.name, seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    code = _run_script(cell.script, words, folder / "output.log", threads)
    log = (folder / "output.log").read_text(errors="replace")
    diverged = any(sign in log for sign in _SIGNS_OF_DIVERGENCE)
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
    }


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
