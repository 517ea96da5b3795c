"""The time of a training step by kind of operator, beside the least time that it could take."""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEvent

from d2_isonet.isometry.regularizer import PROFILER_LABEL

from .detectors import build_detector, training_batch
from .measure import Comparison, seconds_of
from .operators import multiplications_by_operator
from .training import classifier_task, step

_FORWARD, _BACKWARD = "convolutions, forward", "convolutions, backward"
_PRODUCTS, _PENALTY, _OTHER = "matrix products", "penalty", "other"
# A part of an operator's name -> its kind; the first match counts.
_KINDS = {
    "convolution_backward": _BACKWARD,
    "convolution": _FORWARD,
    "conv2d": _FORWARD,
    "mm": _PRODUCTS,
    "matmul": _PRODUCTS,
    "linear": _PRODUCTS,
    "pool": "pooling",
    "roi_align": "ROIs and proposals",
    "nms": "ROIs and proposals",
    "sort": "ROIs and proposals",
    "topk": "ROIs and proposals",
    "index": "ROIs and proposals",
    "_sgd": "optimizer",
    "maximum": "SReLU, sums, scales",
    "threshold": "SReLU, sums, scales",
    "add": "SReLU, sums, scales",
    "sub": "SReLU, sums, scales",
    "mul": "SReLU, sums, scales",
    "sum": "SReLU, sums, scales",
    "copy": "copies and zeros",
    "fill": "copies and zeros",
    "zero": "copies and zeros",
}
_BYTES = 4  # of a float32


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """The time of a training step by kind of operator, beside the least time that it could take.

    That floor is operations over peak, or bytes over bandwidth, both measured on this machine just
    before. Mask R-CNN DC5 and the classifier, R-ISONet-50, penalty on.
    """
    size = [64, 96] if options.quick else options.image_size
    peak, bandwidth = _peak(options), _bandwidth(options)
    name = f"dc5, 2 images of {size[0]} x {size[1]}"
    detection = (name, build_detector("dc5", options), training_batch(size))
    for name, model, batch in (detection, classifier_task(options)):
        yield from _rows(name, model, batch, peak, bandwidth, options)


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
        note = f"{taken / whole:.0%} of the step; {_amounts(flops[kind], moved[kind])}"
        if taken >= whole / 100 and floors[kind]:
            yield Comparison(f"{name}: {kind}", [taken], [floors[kind]], note=note)
    speeds = f"at {peak / 1e9:.0f} GFLOP/s and {bandwidth / 1e9:.1f} GB/s"
    yield Comparison(f"{name}: whole step", [whole], [sum(floors.values())], note=speeds)


def _amounts(flops: float, moved: float) -> str:
    return (f"{flops / 1e9:.0f} GFLOP, " if flops else "") + f"{moved / 1e9:.1f} GB"


def _seconds_and_bytes(run: Callable[[], None], device: str) -> tuple[dict, dict]:
    """Seconds and bytes by kind of the outermost operators, including all that they call."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device != "cpu":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, record_shapes=True) as profile:
        seconds_of(run, device)
    seconds: dict[str, float] = defaultdict(float)
    moved: dict[str, float] = defaultdict(float)
    for event in filter(_is_outermost, profile.events()):
        taken = event.device_time_total if device != "cpu" else event.cpu_time_total
        seconds[_kind(event)] += taken / 1e6
        moved[_kind(event)] += _BYTES * _numbers(event)
    return seconds, moved


def _is_outermost(event: FunctionEvent) -> bool:
    return _is_operator(event) and not (event.cpu_parent and _is_operator(event.cpu_parent))


def _is_operator(event: FunctionEvent) -> bool:
    return event.name.startswith(("aten::", "torchvision::"))


def _numbers(event: FunctionEvent) -> int:
    """Numbers that an operator reads from its inputs and writes to one output of the largest size.

    Zero for operators without a kind: most of them are views, which move nothing.
    """
    sizes = list(_sizes(event.input_shapes)) if _kind(event) != _OTHER else []
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
    return next((kind for part, kind in _KINDS.items() if part in operator), _OTHER)


def _flops(run: Callable[[], None], without_penalty: Callable[[], None]) -> dict[str, float]:
    """Floating-point operations by kind; a multiply-add counts as two."""
    flops: dict[str, float] = defaultdict(float)
    for operator, number in multiplications_by_operator(without_penalty).items():
        flops[_kind_of(operator)] += 2 * number
    with_it = 2 * sum(multiplications_by_operator(run).values())
    flops[_PENALTY] = with_it - sum(flops.values())
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
