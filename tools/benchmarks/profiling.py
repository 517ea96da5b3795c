"""Where the time of a training step goes, beside a floor, and how costs grow with size."""

import argparse
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEvent

from d2_isonet.data.image_folder import load_image_folder
from d2_isonet.data.imagenet import ImageNetMapper
from d2_isonet.data.loader import LoaderOptions
from d2_isonet.isometry.regularizer import PROFILER_LABEL

from .detectors import build_detector, training_batch
from .loading import load_batches, write_photographs
from .measure import Comparison, seconds_in_turn, seconds_of
from .operators import convolutions, multiplications, regularize
from .training import classifier_task, detector_task, step

_FORWARD, _BACKWARD = "convolutions, forward", "convolutions, backward"
_PRODUCTS, _PENALTY, _OTHER = "matrix products", "penalty", "other"
# Kind -> parts of the names of its operators; the first match counts.
_KINDS = {
    _BACKWARD: ("convolution_backward",),
    _FORWARD: ("convolution", "conv2d"),
    _PRODUCTS: ("mm", "matmul", "linear"),
    "pooling": ("pool",),
    "ROIs and proposals": ("roi_align", "nms", "sort", "topk", "index"),
    "optimizer": ("_sgd",),
    "SReLU, sums, scales": ("maximum", "threshold", "add", "sub", "mul", "sum"),
    "copies and zeros": ("copy", "fill", "zero"),
}
_BYTES = 4  # of a float32


def compare_kinds(options: argparse.Namespace) -> Iterator[Comparison]:
    """The time of a training step by kind of operator, beside the least time that it could take.

    That floor is operations over peak, or bytes over bandwidth, both measured on this machine just
    before. Mask R-CNN DC5 and the classifier, R-ISONet-50, penalty on.
    """
    peak, bandwidth = _peak(options), _bandwidth(options)
    for task in (detector_task, classifier_task):
        yield from _rows(*task(options), peak, bandwidth, options)


def _rows(
    name: str, model: nn.Module, batch: list, peak: float, bandwidth: float, options
) -> Iterator[Comparison]:
    """A row for each kind of 1 % or more, then one for the whole step; the peer is the floor."""
    run = step(model, batch, penalty=True)
    run()
    whole = min(seconds_of(run, options.device) for _ in range(options.repetitions))
    seconds, moved = _seconds_and_bytes(run, options.device)
    flops = _flops(run, step(model, batch, penalty=False))
    floors = {kind: max(flops[kind] / peak, moved[kind] / bandwidth) for kind in seconds}
    slowed = sum(seconds.values()) / whole  # by the profiler
    for kind in sorted(seconds, key=seconds.get, reverse=True):
        taken = seconds[kind] / slowed
        counted = f"{flops[kind] / 1e9:.0f} GFLOP, " if flops[kind] else ""
        note = f"{taken / whole:.0%} of the step; {counted}{moved[kind] / 1e9:.1f} GB"
        if taken >= whole / 100 and floors[kind]:
            yield Comparison(f"{name}: {kind}", [taken], [floors[kind]], note=note)
    speeds = f"at {peak / 1e9:.0f} GFLOP/s and {bandwidth / 1e9:.1f} GB/s"
    yield Comparison(f"{name}: whole step", [whole], [sum(floors.values())], note=speeds)


def _seconds_and_bytes(run: Callable[[], None], device: str) -> tuple[dict, dict]:
    """Seconds and bytes by kind of the outermost operators, including all that they call.

    An output is taken to be as large as the largest input.
    """
    activities = torch.profiler.ProfilerActivity
    measured = {activities.CPU} if device == "cpu" else {activities.CPU, activities.CUDA}
    with torch.profiler.profile(activities=measured, record_shapes=True) as profile:
        seconds_of(run, device)
    seconds, moved = defaultdict(float), defaultdict(float)
    for event in profile.events():
        if _is_operator(event) and not _is_operator(event.cpu_parent):
            kind = _kind(event)
            taken = event.cpu_time_total if device == "cpu" else event.device_time_total
            seconds[kind] += taken / 1e6
            if kind != _OTHER:  # the others are mostly views, which move nothing
                sizes = list(_sizes(event.input_shapes))
                moved[kind] += _BYTES * (sum(sizes) + max(sizes, default=0))  # inputs and output
    return seconds, moved


def _is_operator(event: FunctionEvent | None) -> bool:
    return event is not None and event.name.startswith(("aten::", "torchvision::"))


def _sizes(shapes: list) -> Iterator[int]:
    """The sizes of tensors, and of tensors in lists; the shape of a number is empty."""
    for shape in filter(None, shapes):
        if isinstance(shape[0], int):
            yield math.prod(shape)
        else:
            yield from _sizes(shape)


def _kind(event: FunctionEvent) -> str:
    parent = event.cpu_parent
    while parent is not None:
        if parent.name == PROFILER_LABEL:
            return _PENALTY
        parent = parent.cpu_parent
    return _kind_of(event.name)


def _kind_of(operator: str) -> str:
    matching = (kind for kind, parts in _KINDS.items() if any(part in operator for part in parts))
    return next(matching, _OTHER)


def _flops(run: Callable[[], None], without_penalty: Callable[[], None]) -> dict[str, float]:
    """Floating-point operations by kind; a multiply-add counts as two."""
    flops: dict[str, float] = defaultdict(float)
    for operator, number in multiplications(without_penalty).items():
        flops[_kind_of(operator)] += 2 * number
    flops[_PENALTY] = 2 * sum(multiplications(run).values()) - sum(flops.values())
    return flops


def _peak(options: argparse.Namespace) -> float:
    """Floating-point operations per second in a product of large float32 matrices."""
    size = 256 if options.quick else 2048 if options.device == "cpu" else 8192
    a = torch.randn(size, size, device=options.device)
    return 2 * size**3 / _least_seconds(lambda: a @ a, options)


def _bandwidth(options: argparse.Namespace) -> float:
    """Bytes per second that y = x + 1 reads and writes, on tensors far larger than any cache."""
    a = torch.zeros(1 << (20 if options.quick else 28), device=options.device)
    out = torch.zeros_like(a)
    return 2 * _BYTES * a.numel() / _least_seconds(lambda: torch.add(a, 1, out=out), options)


def _least_seconds(function: Callable[[], object], options: argparse.Namespace) -> float:
    function()
    return min(seconds_of(function, options.device) for _ in range(5))


def compare_sizes(options: argparse.Namespace) -> Iterator[Comparison]:
    """How costs grow with size: rows relative to the smallest of their kind, with fitted exponents.

    The penalty by depth and width, a training step by image side and batch, loading by processes.
    """
    quick = options.quick
    depths = {depth: regularize(convolutions(depth, options.device)) for depth in options.depth}
    yield from _rows_by_size("penalty, R-ISONet by depth", depths, options)
    widths = (16, 32) if quick else (64, 128, 256, 512)
    by_width = {width: _penalty_of_width(width, options.device) for width in widths}
    yield from _rows_by_size("penalty of a 3x3, channels", by_width, options)
    model = build_detector("risonet50_dc5", options)
    sides = (64, 96) if quick else (128, 192, 256, 384)
    by_side = {side: step(model, training_batch([side, side], 1), True) for side in sides}
    yield from _rows_by_size("training step dc5, side of an image", by_side, options)
    batches = (1, 2) if quick else (1, 2, 4)
    by_batch = {n: step(model, training_batch([96, 96], n), True) for n in batches}
    yield from _rows_by_size("training step dc5, images", by_batch, options)
    with TemporaryDirectory() as folder:
        yield from _rows_by_size("loading, processes", _by_processes(Path(folder), quick), options)


def _rows_by_size(
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
    """Loading eight batches of 48 photographs, by the number of processes."""
    batch, count = (2, 2) if quick else (48, 8)
    write_photographs(folder, 2 * batch)
    images = (load_image_folder(str(folder), "train")[0], ImageNetMapper(True))
    processes = range(1, (os.cpu_count() or 1) + 1)
    return {n: load_batches(*images, LoaderOptions(batch, n, seed=0), count) for n in processes}
