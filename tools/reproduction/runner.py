"""Run cells: each in a process of its own, forked from one that has torch imported already."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .cells import Cell, Folders, read_result
from .one_cell import current_commit, has_weights, is_locked, run_cell
from .search import is_complete
from .training_run import REPOSITORY

Job = tuple[Cell, int]
PRELOADED = ["d2_isonet.pretraining"]
PATIENCE = 120.0  # seconds that a training has to save itself
_TAIL = 16384  # bytes of a metrics.json that are read: the last few of its lines
SECONDS = 5.0  # from one look at what other runs have done to the next


def run_jobs(jobs: list[Job], folders: Folders, processes: int, threads: int) -> list[str]:
    """Run what has no result yet; a cell waits for the one whose weights it starts from.

    What another run is at is waited for. A cell that fails is told at once, and the others go on.
    Returns the messages of those that failed or could not be started for it.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
    )
    waiting: list[Job] = []
    for job in jobs:  # a complete one may be so no longer once those before it have run
        if _is_to_be_run(job, folders, jobs) or _job_before(job, waiting):
            waiting.append(job)
    with tqdm(total=len(waiting), unit="cell", smoothing=0.1, dynamic_ncols=True) as bar:
        run = _Run(jobs, waiting, folders, bar, processes, threads)
        try:
            while run.waiting or run.running:
                run.start_what_can_be_started()
                run.take_what_is_done()
                bar.set_postfix_str(time_left(run.running.values(), folders))
        except BaseException:  # Ctrl-C: no training goes on unseen
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
    return list(run.failed.values())


class _Run:
    """The jobs that wait, run and have failed."""

    def __init__(
        self,
        jobs: list[Job],
        waiting: list[Job],
        folders: Folders,
        bar: tqdm,
        processes: int,
        threads: int,
    ):
        self.jobs, self.waiting, self.folders, self.bar = jobs, waiting, folders, bar
        self.processes, self.threads = processes, threads
        self.commit = current_commit()  # of the code that the next lines import
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.running: dict[Future, Job] = {}
        self.failed: dict[Job, str] = {}
        self._elsewhere: set[Job] = set()
        self._repeated: set[Job] = set()

    def start_what_can_be_started(self) -> None:
        for job in list(self.waiting):
            before = _job_before(job, [*self.waiting, *self.running.values(), *self.failed])
            if before in self.failed and not _is_to_be_run(job, self.folders, self.jobs):
                self._end(job, "has its result")
            elif before in self.failed:
                self._end(job, f"not run, it needs {before[0].name}", has_failed=True)
            elif before is None and len(self.running) < self.processes:
                self._start(job)

    def _start(self, job: Job) -> None:
        if is_locked(self.folders.lock(*job)):
            self._tell_elsewhere(job)
        elif not _is_to_be_run(job, self.folders, self.jobs):
            self._end(job, "has its result")
        else:
            # a pool of its own: one that is killed takes no other with it
            pool = ProcessPoolExecutor(1, self.context)
            again = _is_used(job, self.folders, self.jobs)
            cell = (run_cell, *job, self.folders, self.commit, self.threads, again)
            future = pool.submit(run_with_parent, *cell)
            pool.shutdown(wait=False)
            self.running[future] = job
            self.waiting.remove(job)

    def take_what_is_done(self) -> None:
        if not self.running:
            time.sleep(SECONDS if self.waiting else 0)
        for done in wait(self.running, SECONDS, FIRST_COMPLETED).done:
            job, error = self.running.pop(done), done.exception()
            if error:
                self._end(job, _reason(error), has_failed=True)
            elif done.result() is None:  # another process was faster by a moment
                self.waiting.append(job)
            else:
                self._end(job, _summary(done.result()))
                self._repeat(job)

    def _repeat(self, job: Job) -> None:
        """Train once more where the best rate is an earlier run's, whose weights are gone."""
        if job not in self._repeated and _is_to_be_run(job, self.folders, self.jobs):
            self._repeated.add(job)
            self.waiting.append(job)
            self.bar.total += 1

    def _end(self, job: Job, message: str, has_failed: bool = False) -> None:
        text = f"{_title(job)}: {message}"
        if has_failed:
            self.failed[job] = text
        if job in self.waiting:
            self.waiting.remove(job)
        self.bar.write(text)
        self.bar.update()

    def _tell_elsewhere(self, job: Job) -> None:
        if job not in self._elsewhere:
            self.bar.write(f"{_title(job)}: another process is at it; waiting for its result")
            self._elsewhere.add(job)


def _reason(error: BaseException) -> str:
    if isinstance(error, BrokenProcessPool):
        return "failed, its process was killed: is there enough memory for so many --jobs?"
    return str(error) or repr(error)


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
    trained = bool(read_result(folders, cell, seed)["measures"])
    return trained and _is_used(job, folders, jobs) and not has_weights(cell, seed, folders)


def _is_used(job: Job, folders: Folders, jobs: list[Job]) -> bool:
    """Whether a cell that is still to be run starts from the weights of this one."""
    users = [j for j in jobs if j[0].weights == job[0] and j[1] == job[1]]
    return any(not is_complete(*user, folders) for user in users)


def _summary(result: dict) -> str:
    found = {k: v for k, v in result["measures"].items() if v is not None and "top-5" not in k}
    values = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
    tried = f", learning rate {result['learning_rate']}" if len(result["attempts"]) > 1 else ""
    return f"{values or 'does not converge'} ({result['seconds']:.0f} s{tried})"


def time_left(jobs: Iterable[Job], folders: Folders) -> str:
    """ "resnet50/depth110 seed 2 at 0.1: 01:28 left; ..."; of a job that tells nothing its name."""
    return "; ".join(_state(cell, seed, folders) for cell, seed in jobs)


def _state(cell: Cell, seed: int, folders: Folders) -> str:
    name = f"{cell.name.partition('/')[2] or cell.name} seed {seed}"
    rates = cell.learning_rates or (None,)
    files = {folders.training(cell, seed, rate) / "metrics.json": rate for rate in rates}
    try:
        path = max(filter(Path.is_file, files), key=os.path.getmtime, default=None)
        seconds = _seconds_left(path) if path else None
    except FileNotFoundError:  # a training that is made anew removes its folder
        return name
    if path is None or seconds is None:
        return name
    at = "" if files[path] is None else f" at {files[path]:g}"
    return f"{name}{at}: {tqdm.format_interval(seconds)} left"


def _seconds_left(metrics: Path) -> float | None:
    """`eta_seconds` in the last line; None at the start, in an evaluation and behind the end."""
    with open(metrics, "rb") as file:
        file.seek(max(0, os.path.getsize(metrics) - _TAIL))
        lines = file.read().splitlines()
    try:
        return json.loads(lines[-1]).get("eta_seconds")
    except (IndexError, ValueError):  # nothing yet, or half a line
        return None


def run_with_parent(function: Callable, *arguments: Any) -> Any:
    """function(*arguments), in a worker that was spawned or comes from a fork server.

    Should its parent end meanwhile, killed or not, SIGTERM tells the training, which saves itself
    between two steps; then this process ends.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        return function(*arguments)
    finally:
        if not parent.is_alive():  # nobody is there to take the result, or to send the next
            os._exit(1)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(1)
