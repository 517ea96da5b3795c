"""Processes for `launch` that start at once: forks of one that has imported torch and detectron2.

A process that `launch` spawns imports them anew, which takes seconds of a core. The server runs
nothing but these imports, so that nothing of a test is in the forks; it ends with pytest.
"""

import multiprocessing
import os
from collections.abc import Callable

import torch.multiprocessing as torch_processes

_IMPORTED = ["d2_isonet.engine", "d2_isonet.pretraining"]
_start_processes = torch_processes.start_processes


def start_processes(function: Callable, args: tuple = (), nprocs: int = 1, join: bool = True):
    """As torch.multiprocessing.start_processes, of which `function` gets the process's number."""
    multiprocessing.set_forkserver_preload(_IMPORTED)
    # a fork has the environment that the server was started with
    arguments = (dict(os.environ), function, *args)
    return _start_processes(_in_environment, arguments, nprocs, join, start_method="forkserver")


def _in_environment(number: int, environment: dict, function: Callable, *args) -> None:
    os.environ.clear()
    os.environ.update(environment)
    function(number, *args)


def run(function: Callable, *args) -> None:
    """Call function(*args) in a process of its own; raises what it raises."""
    start_processes(_called, (function, *args))


def _called(_number: int, function: Callable, *args) -> None:
    function(*args)
