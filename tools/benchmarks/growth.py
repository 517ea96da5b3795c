"""How costs grow with size: rows against the smallest of their kind, with fitted exponents."""

import argparse
import math
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from d2_isonet.data.image_folder import load_image_folder
from d2_isonet.data.imagenet import ImageNetMapper, build_image_train_loader

from .detectors import build_detector, training_batch
from .loading import write_photographs
from .measure import Comparison, seconds_of
from .regularizer import convolutions, regularize
from .training import step


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """The penalty, a training step, loading."""
    quick = options.quick
    yield from _rows("penalty, R-ISONet by depth", _by_depth(options), options)
    widths = (16, 32) if quick else (64, 128, 256, 512)
    yield from _rows("penalty of a 3x3, channels", _by_width(widths, options), options)
    model = build_detector("dc5", options)
    sides = (64, 96) if quick else (128, 192, 256, 384)
    by_side = {side: step(model, training_batch([side, side], 1), True) for side in sides}
    yield from _rows("training step dc5, side of an image", by_side, options)
    batches = (1, 2) if quick else (1, 2, 4)
    by_batch = {n: step(model, training_batch([96, 96], n), True) for n in batches}
    yield from _rows("training step dc5, images", by_batch, options)
    with TemporaryDirectory() as folder:
        yield from _rows("loading, processes", _by_processes(Path(folder), quick), options)


def _rows(name: str, by_size: dict[int, Callable], options) -> Iterator[Comparison]:
    for function in by_size.values():
        function()
    seconds: dict[int, list[float]] = {size: [] for size in by_size}
    for _ in range(options.repetitions):
        for size, function in by_size.items():
            seconds[size].append(seconds_of(function, options.device))
    exponent = _slope(
        [math.log(size) for size in seconds], [math.log(min(s)) for s in seconds.values()]
    )
    smallest = next(iter(seconds))
    for size, taken in seconds.items():
        note = f"exponent {exponent:.2f}" if size == max(seconds) else ""
        yield Comparison(f"{name}: {size}", taken, seconds[smallest], note=note)


def _slope(x: list[float], y: list[float]) -> float:
    """Of the line through the points, by least squares."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    variance = sum((a - mean_x) ** 2 for a in x)
    return covariance / variance if variance else math.nan


def _by_depth(options: argparse.Namespace) -> dict[int, Callable]:
    return {depth: regularize(convolutions(depth, options.device)) for depth in options.depth}


def _by_width(widths: tuple[int, ...], options: argparse.Namespace) -> dict[int, Callable]:
    def penalty(width: int) -> Callable:
        conv = nn.Conv2d(width, width, 3, padding=1, bias=False, device=options.device)
        conv.weight.grad = torch.zeros_like(conv.weight)
        return regularize({"res2.conv": conv})

    return {width: penalty(width) for width in widths}


def _by_processes(folder: Path, quick: bool) -> dict[int, Callable]:
    """Loading eight batches of 48 photographs in so many processes that have been started."""
    batch, count = (2, 2) if quick else (48, 8)
    write_photographs(folder, 2 * batch)
    dicts = load_image_folder(str(folder), "train")[0]

    def load(processes: int) -> Callable:
        loader = build_image_train_loader(dicts, ImageNetMapper(True), batch, processes, seed=0)
        batches = iter(loader)
        return lambda: [None for _ in islice(batches, count)]

    return {n: load(n) for n in range(1, (os.cpu_count() or 1) + 1)}
