"""A worker ends with the program that has started it, however that one ends."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

PATIENCE = 120.0  # seconds that a training has to save itself


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
