"""Training on N gloo processes, so many images each, against N times the speed of one alone."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from detectron2.modeling import build_model
from detectron2.utils import comm

from d2_isonet.config.loading import load_config
from d2_isonet.distributed.launch import launch
from d2_isonet.utils.compat import create_ddp_model

from .measure import Comparison
from .pretraining import plain_step


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """The ratio is the efficiency: 1 where a process loses nothing to the others.

    Every process has one thread; more processes than cores share them, which alone makes the
    ratio cores / processes.
    """
    images, side = (2, 32) if options.quick else (8, 112)
    for processes in (1, 2) if options.quick else (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "seconds.pth"
            arguments = (images, side, options.repetitions, path)
            launch(_measure, processes, args=arguments)
            together, alone = torch.load(path)
        amount = processes * images
        yield Comparison(
            f"R-ISONet-18, {processes} x {images} images of {side} x {side}",
            [amount / seconds for seconds in together],
            [amount / seconds for seconds in alone],
            unit="images/s",
            more_is_better=True,
            note=f"{processes} processes",
        )


def _measure(images: int, side: int, repetitions: int, path: Path) -> None:
    """Write seconds of a step of all together, and of the first alone while the others wait."""
    torch.set_num_threads(1)
    torch.manual_seed(comm.get_rank())
    opts = ["MODEL.DEVICE", "cpu", "MODEL.CLASSIFIER.NUM_CLASSES", "1000"]
    model = build_model(load_config("configs/imagenet/risonet18.yaml", opts)).train()
    pixels = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8)
    batch = [{"image": image, "label": i} for i, image in enumerate(pixels)]
    # a trainer's step would wait for the other processes
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
    """Of one of a few steps in a row."""
    start = time.perf_counter()
    for _ in range(steps):
        function()
    return (time.perf_counter() - start) / steps
