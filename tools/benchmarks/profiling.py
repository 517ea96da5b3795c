"""The time of a training step by kind of operator, beside the least time that it could take."""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEvent

from d2_isonet.isometry.regularizer import PROFILER_LABEL

from .measure import Comparison, seconds_of
from .operators import multiplications
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


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
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
    """Seconds and bytes by kind of the outermost operators, including all that they call."""
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
            moved[kind] += _BYTES * _numbers(event.input_shapes) if kind != _OTHER else 0
    return seconds, moved  # most operators without a kind are views, which move nothing


def _is_operator(event: FunctionEvent | None) -> bool:
    return event is not None and event.name.startswith(("aten::", "torchvision::"))


def _numbers(shapes: list) -> int:
    """Numbers that an operator reads from its inputs, and writes to an output as large as any."""
    sizes = list(_sizes(shapes))
    return sum(sizes) + max(sizes, default=0)


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
