"""Run cells: each in a process of its own, forked from one that has torch imported already."""

import contextlib
import multiprocessing
import os
import platform
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

from tqdm import tqdm

from .cells import REPOSITORY, Cell, Folders, arguments, command, read_result, write_result
from .data import data_arguments
from .measures import has_converged, measures, shifts

Job = tuple[Cell, int]
PRELOADED = ["d2_isonet.pretraining"]


def run_jobs(jobs: list[Job], folders: Folders, processes: int, threads: int) -> list[str]:
    """Run what has no result yet; a cell waits for the one whose weights it starts from.

    A cell that fails is told at once, and the others go on. Returns the messages of those that
    failed or could not be started for it.
    """
    waiting = [job for job in jobs if _is_to_be_run(job, folders, jobs)]
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    running: dict = {}
    failed: dict[Job, str] = {}
    with (
        ProcessPoolExecutor(processes, context, max_tasks_per_child=1) as pool,
        tqdm(total=len(waiting), unit="cell", smoothing=0.1) as bar,
    ):
        while waiting or running:
            for job in list(waiting):
                before = _weights_job(job, [*waiting, *running.values(), *failed])
                if before in failed:
                    failed[job] = f"{_title(job)}: not run, it needs {before[0].name}"
                    waiting.remove(job)
                elif before is None and len(running) < processes:
                    running[pool.submit(run_cell, *job, folders, threads)] = job
                    waiting.remove(job)
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(done)
                if done.exception():
                    failed[job] = str(done.exception())
                bar.write(f"{_title(job)}: {failed.get(job) or _summary(done.result())}")
                bar.update()
    return list(failed.values())


def _title(job: Job) -> str:
    return f"{job[0].name} seed {job[1]}"


def _weights_job(job: Job, jobs) -> Job | None:
    cell, seed = job
    return next((j for j in jobs if j[0].name == cell.weights and j[1] == seed), None)


def _is_to_be_run(job: Job, folders: Folders, jobs: list[Job]) -> bool:
    """Without a result, or with one but without the weights that another cell to be run needs."""
    cell, seed = job
    if read_result(folders, cell, seed) is None:
        return True
    users = [j for j in jobs if j[0].weights == cell.name and j[1] == seed]
    needed = any(read_result(folders, *j) is None for j in users)
    return needed and not (folders.training(cell.name, seed) / "backbone.pth").is_file()


def _summary(result: dict) -> str:
    values = ", ".join(f"{name} {value:.1f}" for name, value in result["measures"].items())
    rates = [attempt["learning_rate"] for attempt in result["attempts"]]
    tried = f", learning rates {rates}" if len(rates) > 1 else ""
    return f"{values or 'does not converge'} ({result['seconds']:.0f} s{tried})"


def run_cell(cell: Cell, seed: int, folders: Folders, threads: int = 0) -> dict:
    """Train until one learning rate converges, store the result and return it.

    A result is stored also where none does: that is one of the answers.
    """
    start = time.time()
    attempts = []
    for rate in cell.learning_rates or (None,):
        words = arguments(cell, seed, folders, data_arguments(cell, folders.data), rate)
        attempts.append(_attempt(cell, seed, folders, words, rate, threads))
        if attempts[-1]["converged"]:
            break
    result = {
        "cell": cell.name,
        "seed": seed,
        "measures": attempts[-1]["measures"] if attempts[-1]["converged"] else {},
        "attempts": attempts,
        "shifts": shifts(folders.training(cell.name, seed)),
        "seconds": round(time.time() - start, 1),
        **_circumstances(),
    }
    write_result(folders, cell, seed, result)
    return result


def _attempt(
    cell: Cell, seed: int, folders: Folders, words: list[str], rate: float | None, threads: int
) -> dict:
    folder = folders.training(cell.name, seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    code = _run_script(cell.script, words, folder / "output.log", threads)
    log = (folder / "output.log").read_text(errors="replace")
    diverged = "FloatingPointError" in log
    if code and not diverged:
        tail = "\n".join(log.splitlines()[-15:])
        raise RuntimeError(f"failed, see {folder}/output.log:\n{tail}")
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


def _circumstances() -> dict:
    """Commit and machine."""
    import torch

    git = ["git", "-C", str(REPOSITORY)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "d2_isonet", "configs", "tools", "train_net.py"],
        capture_output=True,
        text=True,
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "commit": commit.stdout.strip() + ("+changes" if changed.stdout.strip() else ""),
        "machine": gpu or f"CPU, {torch.get_num_threads()} thread(s) of {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
