"""Processes that start at once: forks of one that has imported torch and detectron2.

A process that `launch` spawns, or a script, imports them anew, which takes seconds of a core. The
server runs nothing but these imports, so that nothing of a test is in the forks; it ends with
pytest.
"""

import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import torch.multiprocessing as torch_processes

_start_processes = torch_processes.start_processes
multiprocessing.set_forkserver_preload(["d2_isonet.engine.trainer", "d2_isonet.engine.pretraining"])


def start_processes(function: Callable, args: tuple = (), nprocs: int = 1, join: bool = True):
    """As torch.multiprocessing.start_processes, of which `function` gets the process's number."""
    # a fork has the environment that the server was started with
    arguments = (dict(os.environ), function, *args)
    return _start_processes(_in_environment, arguments, nprocs, join, start_method="forkserver")


def run(function: Callable, *args) -> None:
    """Call function(*args) in a process of its own; raises what it raises."""
    start_processes(_called, (function, *args))


def run_script(script: str | os.PathLike, *arguments: object, **environment: str):
    """`python script arguments`, with such variables in its environment: a CompletedProcess."""
    words = [str(word) for word in (script, *arguments)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdout", "stderr")]
        process = multiprocessing.get_context("forkserver").Process(
            target=_in_environment, args=(0, os.environ | environment, _script, words, files)
        )
        process.start()
        process.join()
        return CompletedProcess(words, process.exitcode, *(file.read_text() for file in files))


def _in_environment(number: int, environment: dict, function: Callable, *args) -> None:
    os.environ.clear()
    os.environ.update(environment)
    function(number, *args)


def _called(_number: int, function: Callable, *args) -> None:
    function(*args)


def _script(_number: int, words: list[str], files: list[Path]) -> None:
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = words
    sys.path.insert(0, os.path.dirname(os.path.abspath(words[0])))
    runpy.run_path(words[0], run_name="__main__")
