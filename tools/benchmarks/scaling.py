"""Training on N gloo processes against N times the speed of one process."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from detectron2.utils import comm

from d2_isonet.distributed.launch import launch
from d2_isonet.utils.compat import create_ddp_model

from .measure import Comparison, compare_speeds
from .pretraining import plain_step
from .training import build_classifier, labelled_images


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """Training on N gloo processes, the same images each, against N times the speed of one alone.

    The ratio is the efficiency: 1 if a process loses nothing to the others. Every process has one
    thread. More processes than cores share them, which alone makes the ratio cores / processes.
    """
    images, side = (2, 32) if options.quick else (8, 112)
    for processes in (1, 2) if options.quick else (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "seconds.pth"
            launch(_measure, processes, args=(images, side, options.repetitions, path))
            seconds = torch.load(path)
        name = f"R-ISONet-18, {processes} x {images} images of {side} x {side}"
        yield compare_speeds(name, processes * images, seconds, note=f"{processes} processes")


def _measure(images: int, side: int, repetitions: int, path: Path) -> None:
    """Write the seconds of a step of all processes together, and of the first while others wait."""
    torch.set_num_threads(1)
    model = build_classifier(18, "cpu")
    torch.manual_seed(comm.get_rank())
    batch = labelled_images(images, side)
    # not a trainer's step, which would wait for the other processes
    alone = plain_step(model, batch, "float32")
    together = plain_step(create_ddp_model(model), batch, "float32")
    is_first = comm.is_main_process()
    seconds: tuple[list[float], list[float]] = ([], [])
    for repetition in range(repetitions + 1):
        for function, taken in zip((together, alone), seconds, strict=True):
            comm.synchronize()
            taken_now = _seconds(function) if is_first or function is together else 0.0
            if repetition:  # the first is a warm-up
                taken.append(taken_now)
    if is_first:
        torch.save(seconds, path)


def _seconds(function: Callable[[], None], steps: int = 5) -> float:
    """The mean time of a step."""
    start = time.perf_counter()
    for _ in range(steps):
        function()
    return (time.perf_counter() - start) / steps
