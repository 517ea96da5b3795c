"""How costs grow with size: rows relative to the smallest of their kind, with fitted exponents."""

import argparse
import math
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from d2_isonet.data.image_folder import load_image_folder
from d2_isonet.data.imagenet import ImageNetMapper, build_image_train_loader
from d2_isonet.data.loader import LoaderOptions

from .detectors import build_detector, training_batch
from .loading import write_photographs
from .measure import Comparison, seconds_in_turn
from .operators import convolutions, regularize
from .training import step


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """How costs grow with size: rows relative to the smallest of their kind, with fitted exponents.

    The penalty by depth and width, a training step by image side and batch, loading by processes.
    """
    quick = options.quick
    depths = {depth: regularize(convolutions(depth, options.device)) for depth in options.depth}
    yield from _rows("penalty, R-ISONet by depth", depths, options)
    widths = (16, 32) if quick else (64, 128, 256, 512)
    by_width = {width: _penalty_of_width(width, options.device) for width in widths}
    yield from _rows("penalty of a 3x3, channels", by_width, options)
    model = build_detector("dc5", options)
    sides = (64, 96) if quick else (128, 192, 256, 384)
    by_side = {side: step(model, training_batch([side, side], 1), True) for side in sides}
    yield from _rows("training step dc5, side of an image", by_side, options)
    batches = (1, 2) if quick else (1, 2, 4)
    by_batch = {n: step(model, training_batch([96, 96], n), True) for n in batches}
    yield from _rows("training step dc5, images", by_batch, options)
    with TemporaryDirectory() as folder:
        yield from _rows("loading, processes", _by_processes(Path(folder), quick), options)


def _rows(
    name: str, by_size: dict[int, Callable], options: argparse.Namespace
) -> Iterator[Comparison]:
    times = seconds_in_turn(by_size.values(), options)
    exponent = math.nan
    if len(by_size) > 1:  # the slope of the line through the logarithms, by least squares
        exponent = np.polyfit(np.log(list(by_size)), np.log([min(taken) for taken in times]), 1)[0]
    for size, taken in zip(by_size, times, strict=True):
        note = f"exponent {exponent:.2f}" if size == max(by_size) else ""
        yield Comparison(f"{name}: {size}", taken, times[0], note=note)


def _penalty_of_width(width: int, device: str) -> Callable:
    conv = nn.Conv2d(width, width, 3, padding=1, bias=False, device=device)
    conv.weight.grad = torch.zeros_like(conv.weight)
    return regularize({"res2.conv": conv})


def _by_processes(folder: Path, quick: bool) -> dict[int, Callable]:
    """Loading eight batches of 48 photographs, by the number of processes, already started."""
    batch, count = (2, 2) if quick else (48, 8)
    write_photographs(folder, 2 * batch)
    dicts = load_image_folder(str(folder), "train")[0]

    def load(processes: int) -> Callable:
        loading = LoaderOptions(batch, processes, seed=0)
        batches = iter(build_image_train_loader(dicts, ImageNetMapper(True), loading))
        return lambda: [None for _ in islice(batches, count)]

    return {n: load(n) for n in range(1, (os.cpu_count() or 1) + 1)}
