"""Runs cells, each in its own process, forked from one that has already imported torch."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .cells import Cell, Folders, read_result
from .one_cell import current_commit, has_weights, is_locked, run_cell
from .search import is_complete
from .training_run import environment

Job = tuple[Cell, int]
PRELOADED = ["d2_isonet.engine.pretraining"]
PATIENCE = 120.0  # seconds for a training to save itself
_TAIL = 16384  # bytes read from the end of a metrics.json: its last few lines
SECONDS = 5.0  # between two looks at the results of other runs


def run_jobs(jobs: list[Job], folders: Folders, processes: int, threads: int) -> list[str]:
    """Run the cells without a result; a cell waits for the one whose weights it starts from.

    A cell that another run has locked is waited for. If a cell fails, its message is printed at
    once and the others continue. Returns the messages of the cells that failed, and of those that
    could not start because of them.
    """
    os.environ.update(environment())
    run = _Run(jobs, folders, processes, threads)
    with run.bar:
        try:
            while run.waiting or run.running:
                run.start_what_can_be_started()
                run.take_what_is_done()
                run.bar.set_postfix_str(time_left(run.running.values(), folders))
        except BaseException:  # Ctrl-C: no training may continue unseen
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
    return list(run.failed.values())


class _Run:
    """The jobs that are waiting, running and failed."""

    def __init__(self, jobs: list[Job], folders: Folders, processes: int, threads: int):
        self.jobs, self.folders, self.processes, self.threads = jobs, folders, processes, threads
        self.commit = current_commit()  # of the code that the next lines import
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.waiting: list[Job] = []
        for job in jobs:  # the jobs before it may change what is complete
            if _is_to_be_run(job, folders, jobs) or _job_before(job, self.waiting):
                self.waiting.append(job)
        self.running: dict[Future, Job] = {}
        self.failed: dict[Job, str] = {}
        self.bar = tqdm(total=len(self.waiting), unit="cell", smoothing=0.1, dynamic_ncols=True)
        self._elsewhere: set[Job] = set()
        self._repeated: set[Job] = set()

    def start_what_can_be_started(self) -> None:
        for job in list(self.waiting):
            before = _job_before(job, [*self.waiting, *self.running.values(), *self.failed])
            if before in self.failed and _is_to_be_run(job, self.folders, self.jobs):
                self._end(job, f"not run, it needs {before[0].name}", has_failed=True)
            elif before in self.failed:
                self._end(job, "has its result")
            elif before is None and len(self.running) < self.processes:
                self._start(job)

    def _start(self, job: Job) -> None:
        if is_locked(self.folders.lock(*job)):
            if job not in self._elsewhere:
                title = _title(job)
                self.bar.write(f"{title}: another process is running it; waiting for its result")
                self._elsewhere.add(job)
        elif not _is_to_be_run(job, self.folders, self.jobs):
            self._end(job, "has its result")
        else:
            # one pool a job: a killed worker breaks its own pool only
            pool = ProcessPoolExecutor(1, self.context)
            again = _is_used(job, self.folders, self.jobs)
            cell = (run_cell, *job, self.folders, self.commit, self.threads, again)
            self.running[pool.submit(run_with_parent, *cell)] = job
            pool.shutdown(wait=False)
            self.waiting.remove(job)

    def take_what_is_done(self) -> None:
        if not self.running:
            time.sleep(SECONDS if self.waiting else 0)
        for done in wait(self.running, SECONDS, FIRST_COMPLETED).done:
            job, error = self.running.pop(done), done.exception()
            if isinstance(error, BrokenProcessPool):
                reason = "its process was killed: is there enough memory for so many --jobs?"
                self._end(job, f"failed, {reason}", has_failed=True)
            elif error:
                self._end(job, str(error) or repr(error), has_failed=True)
            elif done.result() is None:  # another process took the lock first
                self.waiting.append(job)
            else:
                self._end(job, _summary(done.result()))
                self._repeat(job)

    def _repeat(self, job: Job) -> None:
        """Train once more if the best rate is an earlier run's and its weights are gone."""
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


def _title(job: Job) -> str:
    return f"{job[0].name} seed {job[1]}"


def _job_before(job: Job, jobs: Iterable[Job]) -> Job | None:
    """The one of `jobs` that must end first: its weights, or the search of seed 1."""
    cell, seed = job
    needed = [(cell.weights, seed)]
    if seed > 1 and cell.learning_rates:
        needed.append((cell, 1))
    return next((j for j in jobs if j in needed), None)


def _is_to_be_run(job: Job, folders: Folders, jobs: list[Job]) -> bool:
    """Whether its result is incomplete, or another cell needs weights that were not kept."""
    cell, seed = job
    if not is_complete(cell, seed, folders):
        return True
    trained = bool(read_result(folders, cell, seed)["measures"])
    return trained and _is_used(job, folders, jobs) and not has_weights(cell, seed, folders)


def _is_used(job: Job, folders: Folders, jobs: list[Job]) -> bool:
    """Whether an incomplete cell starts from the weights of this one."""
    users = [j for j in jobs if j[0].weights == job[0] and j[1] == job[1]]
    return any(not is_complete(*user, folders) for user in users)


def _summary(result: dict) -> str:
    found = {k: v for k, v in result["measures"].items() if v is not None and "top-5" not in k}
    values = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
    tried = f", learning rate {result['learning_rate']}" if len(result["attempts"]) > 1 else ""
    return f"{values or 'does not converge'} ({result['seconds']:.0f} s{tried})"


def time_left(jobs: Iterable[Job], folders: Folders) -> str:
    """ "resnet50/depth110 seed 2 at 0.1: 01:28 left; ..."; the name alone if no time is known."""
    return "; ".join(_state(cell, seed, folders) for cell, seed in jobs)


def _state(cell: Cell, seed: int, folders: Folders) -> str:
    name = f"{cell.name.partition('/')[2] or cell.name} seed {seed}"
    rates = cell.learning_rates or (None,)
    files = {folders.training(cell, seed, rate) / "metrics.json": rate for rate in rates}
    try:
        path = max(filter(Path.is_file, files), key=os.path.getmtime, default=None)
        seconds = _seconds_left(path) if path else None
    except FileNotFoundError:  # a training that starts anew removes its folder
        seconds = None
    if seconds is None:
        return name
    at = "" if files[path] is None else f" at {files[path]:g}"
    return f"{name}{at}: {tqdm.format_interval(seconds)} left"


def _seconds_left(metrics: Path) -> float | None:
    """`eta_seconds` in the last line; None at the start, during an evaluation and at the end."""
    with open(metrics, "rb") as file:
        file.seek(max(0, os.path.getsize(metrics) - _TAIL))
        lines = file.read().splitlines()
    try:
        return json.loads(lines[-1]).get("eta_seconds")
    except (IndexError, ValueError):  # nothing yet, or half a line
        return None


def run_with_parent(function: Callable, *arguments: Any) -> Any:
    """Call function(*arguments) in a worker that was spawned or comes from a fork server.

    If its parent ends first, killed or not, this process gets SIGTERM: the training saves itself
    between two steps, and the process ends.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def end_with_parent() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        return function(*arguments)
    finally:
        if not parent.is_alive():  # nobody takes the result or sends the next job
            os._exit(1)
