"""SReLU, forward and backward, against relu(x - b) + b written out and against in-place ReLU."""

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import nn

from d2_isonet import SReLU

from .measure import Comparison, seconds_in_turn

# Maps of R-ISONet-50: after the stem of 2 images of 800 x 1333, in res2 and res4 of 32 of 224.
_SHAPES = {"2 x 64 x 400 x 672": (2, 64, 400, 672), "32 x 256 x 56 x 56": (32, 256, 56, 56),
           "32 x 256 x 14 x 14": (32, 256, 14, 14)}  # fmt: skip
_FORMATS = {"": torch.contiguous_format, ", channels_last": torch.channels_last}


class Formula(nn.Module):
    """The authors' expression of eq. 15."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.shift = nn.Parameter(torch.full((1, num_channels, 1, 1), -1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x - self.shift) + self.shift


class _Source(torch.autograd.Function):
    """A fresh map that may be written over, as a convolution makes; it asks for its gradient."""

    @staticmethod
    def forward(ctx, x, handle):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return None, None


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """Each shape in both memory formats."""
    shapes = {"2 x 4 x 8 x 8": (2, 4, 8, 8)} if options.quick else _SHAPES
    on_gpu = options.device != "cpu"
    for (name, shape), (suffix, memory_format) in [
        (shape, layout) for shape in shapes.items() for layout in _FORMATS.items()
    ]:
        x = torch.randn(shape, device=options.device).to(memory_format=memory_format)
        ours = _step(SReLU(shape[1], inplace=True).to(options.device), x)
        formula = _step(Formula(shape[1]).to(options.device), x)
        relu = _step(nn.ReLU(inplace=True), x)
        copy = _step(nn.Identity(), x)
        for peer, function, limit in (
            ("relu(x - b) + b", formula, None if on_gpu else 0.6),
            ("in-place ReLU", relu, 1.1 if on_gpu else None),
        ):
            yield Comparison(
                f"{name}{suffix}, {peer}",
                *_without(copy, ours, function, options),
                limit=limit,
            )


def _without(copy: Callable, ours: Callable, peer: Callable, options: argparse.Namespace):
    """The seconds of both less those of making and handing over the map."""
    times = seconds_in_turn(ours, peer, options.repetitions, options.device)
    overhead = min(seconds_in_turn(copy, copy, options.repetitions, options.device)[0])
    return [[max(t - overhead, 1e-9) for t in seconds] for seconds in times]


def _step(activation: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    handle = torch.zeros((), requires_grad=True)
    grad = torch.randn_like(x)

    def step() -> None:
        y = activation(_Source.apply(x, handle))
        y.backward(grad)

    return step
