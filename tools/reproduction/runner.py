"""Run cells: each in a process of its own, forked from one that has torch imported already."""

import json
import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait

from tqdm import tqdm

from .cells import REPOSITORY, Cell, Folders, read_result, settings
from .one_cell import current_commit, run_cell

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
                before = _weights_job(job, [*waiting, *running.values(), *failed])
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


def _weights_job(job: Job, jobs) -> Job | None:
    cell, seed = job
    return next((j for j in jobs if j == (cell.weights, seed)), None)


def _is_to_be_run(job: Job, folders: Folders, jobs: list[Job]) -> bool:
    """Without a result, or with one but without the weights that another cell to be run needs."""
    cell, seed = job
    result = read_result(folders, cell, seed)
    if result is None:
        return True
    users = [j for j in jobs if j[0].weights == cell and j[1] == seed]
    needed = any(read_result(folders, *j) is None for j in users)
    return needed and bool(result["measures"]) and not _has_weights(cell, seed, folders)


def _has_weights(cell: Cell, seed: int, folders: Folders) -> bool:
    """Whether the training of just this cell, not of one with other settings, lies there."""
    record = folders.training(cell.name, seed) / "cell.json"
    return record.is_file() and json.loads(record.read_text()) == settings(cell)


def _summary(result: dict | None) -> str:
    if result is None:
        return "is being run by another process"
    found = {k: v for k, v in result["measures"].items() if v is not None}
    values = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
    rates = [attempt["learning_rate"] for attempt in result["attempts"]]
    tried = f", learning rates {rates}" if len(rates) > 1 else ""
    return f"{values or 'does not converge'} ({result['seconds']:.0f} s{tried})"
