"""Run cells: each in a process of its own, forked from one that has torch imported already."""

import json
import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait

from tqdm import tqdm

from .cells import REPOSITORY, Cell, Folders, read_result, settings
from .one_cell import current_commit, is_complete, run_cell

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
    commit = current_commit()  # of the code that the next lines import
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
                before = _job_before(job, [*waiting, *running.values(), *failed])
                if before in failed:
                    failed[job] = f"{_title(job)}: not run, it needs {before[0].name}"
                    waiting.remove(job)
                elif before is None and len(running) < processes:
                    running[pool.submit(run_cell, *job, folders, commit, threads)] = job
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


def _job_before(job: Job, jobs: Iterable[Job]) -> Job | None:
    """One of `jobs` that must end first: the weights', or the first seed's search."""
    cell, seed = job
    needed = [(cell.weights, seed)]
    if seed > 1 and cell.learning_rates:
        needed.append((cell, 1))
    return next((j for j in jobs if j in needed), None)


def _is_to_be_run(job: Job, folders: Folders, jobs: list[Job]) -> bool:
    """Without a whole result, or with one but without the weights that a cell to be run needs."""
    cell, seed = job
    if not is_complete(cell, seed, folders):
        return True
    users = [j for j in jobs if j[0].weights == cell and j[1] == seed]
    needed = any(not is_complete(*j, folders) for j in users)
    trained = bool(read_result(folders, cell, seed)["measures"])
    return needed and trained and not _has_weights(cell, seed, folders)


def _has_weights(cell: Cell, seed: int, folders: Folders) -> bool:
    """Whether the training of just this cell, not of one with other settings, lies there."""
    record = folders.weights(cell, seed) / "cell.json"
    return record.is_file() and json.loads(record.read_text()) == settings(cell)


def _summary(result: dict | None) -> str:
    if result is None:
        return "is being run by another process"
    found = {k: v for k, v in result["measures"].items() if v is not None and "top-5" not in k}
    values = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
    tried = f", learning rate {result['learning_rate']}" if len(result["attempts"]) > 1 else ""
    return f"{values or 'does not converge'} ({result['seconds']:.0f} s{tried})"
