"""The same function over many jobs, in order, on one or several processes."""

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import cv2
from tqdm import tqdm

JOBS_AT_ONCE = 16


class _Worker:
    """What a process holds, sent to it once instead of with every job."""

    function: Callable[[Any], Any]

    @classmethod
    def start(cls, function: Callable[[Any], Any]) -> None:
        cv2.setNumThreads(1)
        cls.function = staticmethod(function)

    @classmethod
    def run(cls, job: Any) -> Any:
        return cls.function(job)


def ordered_map(
    function: Callable[[Any], Any], jobs: Sequence[Any], workers: int, description: str
) -> Iterator[Any]:
    """function(job) for each job, in the order of jobs whatever the number of workers.

    function and its results must be picklable where workers > 1. Progress goes to stderr.
    """
    interval = 0.5 if sys.stderr.isatty() else 10.0  # a log file wants few lines
    progress = {"total": len(jobs), "desc": description, "mininterval": interval}
    if workers <= 1:
        yield from tqdm(map(function, jobs), **progress)
        return
    context = multiprocessing.get_context("spawn")  # forking a process with threads can hang
    with ProcessPoolExecutor(workers, context, _Worker.start, (function,)) as pool:
        yield from tqdm(pool.map(_Worker.run, jobs, chunksize=JOBS_AT_ONCE), **progress)
