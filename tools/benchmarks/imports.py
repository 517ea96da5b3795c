"""The start of d2_isonet and its scripts against an import of detectron2, in new processes."""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .measure import Comparison

REPOSITORY = Path(__file__).resolve().parents[2]
_LIMIT = 1.1
_PEER = ["-c", "import detectron2"]
_MODELING = "from detectron2.modeling import build_model"


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """The start of d2_isonet and its scripts against an import of detectron2 alone.

    Each is a new Python process with everything in the page cache, measured in seconds on the
    clock and in seconds of CPU (user and system). The last row is for a program that then builds a
    model: it also imports the modules that register our networks. With quick, the first row, once.

    Raises:
        RuntimeError: a process failed.
    """
    repetitions = 1 if options.quick else options.repetitions
    yield from _rows("import d2_isonet", ["-c", "import d2_isonet"], _PEER, repetitions, _LIMIT)
    if options.quick:
        return
    for script in ("train_net.py", "tools/pretrain_imagenet.py"):
        name = f"{Path(script).name} --help"
        yield from _rows(name, [script, "--help"], _PEER, repetitions, _LIMIT)
    ours, peer = ["-c", f"import d2_isonet; {_MODELING}"], ["-c", _MODELING]
    yield from _rows("import d2_isonet, detectron2.modeling", ours, peer, repetitions, None)


def _rows(
    name: str, ours: list[str], peer: list[str], repetitions: int, limit: float | None
) -> Iterator[Comparison]:
    for arguments in (ours, peer) if repetitions > 1 else ():
        _seconds_of_process(arguments)  # fills the page cache
    times = [(_seconds_of_process(ours), _seconds_of_process(peer)) for _ in range(repetitions)]
    note = f"peer: python {' '.join(peer)}"
    for i, clock in enumerate(("", ", CPU")):
        a, b = ([pair[side][i] for pair in times] for side in (0, 1))
        yield Comparison(f"{name}{clock}", a, b, limit=limit, note=note)


def _seconds_of_process(arguments: list[str]) -> tuple[float, float]:
    """Seconds on the clock and of CPU of one Python process in the repository's root."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-W", "ignore", *arguments]
    before, start = _cpu_of_processes(), time.perf_counter()
    process = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    seconds, cpu = time.perf_counter() - start, _cpu_of_processes() - before
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed: {process.stderr.strip()}")
    return seconds, cpu


def _cpu_of_processes() -> float:
    """User and system seconds of all child processes that have ended."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
