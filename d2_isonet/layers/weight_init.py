"""Convolution initializers; siblings of fvcore's c2_msra_fill."""

import functools
import itertools
import math
from collections.abc import Callable

import torch
from fvcore.nn.weight_init import c2_msra_fill
from torch import nn

from d2_isonet.config.options import check_name


def delta_fill(conv: nn.Conv2d) -> None:
    """Make `conv` the Kronecker delta: output channel m copies input channel m (ISONet, Example 1).

    The centre tap is one for equal indices (per group); all else is zero, also the bias. With more
    outputs than inputs the remaining outputs are zero, with fewer the remaining inputs are
    dropped. A stride samples.
    """
    nn.init.dirac_(conv.weight, conv.groups)
    _clear_bias(conv)


@torch.no_grad()
def delta_orthogonal_fill(conv: nn.Conv2d) -> None:
    """Make the centre tap a random orthogonal matrix per group, all else zero (Xiao et al. 2018).

    The matrix has orthonormal rows or columns, whichever are fewer, and gain 1: with stride 1
    every singular value of the convolution is 1 or, for outputs or inputs left over, 0.
    """
    weight = conv.weight
    row, column = (size // 2 for size in weight.shape[2:])
    nn.init.zeros_(weight)
    for group in weight.chunk(conv.groups):
        group[:, :, row, column] = nn.init.orthogonal_(group.new_empty(group.shape[:2]))
    _clear_bias(conv)


@torch.no_grad()
def phase_shifted_delta_fill(conv: nn.Conv2d) -> None:
    """Make `conv` a delta that is isometric also with a stride.

    A strided delta of more outputs than inputs reads one of S x S pixels and leaves the remaining
    outputs zero. Here output channel m copies input channel m mod C at phase m div C of the
    S x S pixels (per group): rows are orthonormal for C < M <= C S^2. This attains the minimum
    of the exact orthogonal penalty for every shape; without a stride, or with M <= C, it is
    `delta_fill`.
    """
    axes = map(_phase_taps, conv.weight.shape[2:], conv.stride, conv.dilation)
    phases = list(itertools.product(*axes))
    nn.init.zeros_(conv.weight)
    for group in conv.weight.chunk(conv.groups):
        outputs, inputs = group.shape[:2]
        for m in range(min(outputs, inputs * len(phases))):
            phase, channel = divmod(m, inputs)
            row, column = phases[phase]
            group[m, channel, row, column] = 1
    _clear_bias(conv)


def _phase_taps(kernel_size: int, stride: int, dilation: int) -> list[int]:
    """Taps of different phases along one axis, the centre first, then backwards from it."""
    count = min(kernel_size, stride // math.gcd(stride, dilation))
    first_taps = [kernel_size // 2 - phase for phase in range(count)]
    return [tap if tap >= 0 else tap + count for tap in first_taps]


def fixup_fill(*convs: nn.Conv2d, num_branches: int = 1) -> None:
    """Fixup's rule for the m convolutions of a residual branch, in order (Zhang et al. 2019).

    He's normal distribution times L^(-1/(2m-2)), with L the `num_branches` of the whole network,
    and zeros in the last; biases are zero. A single convolution is no branch and is not scaled.
    """
    for conv in convs:
        c2_msra_fill(conv)
    if len(convs) == 1:
        return
    with torch.no_grad():
        for conv in convs[:-1]:
            conv.weight *= num_branches ** (-1 / (2 * len(convs) - 2))
        convs[-1].weight.zero_()


def _clear_bias(conv: nn.Conv2d) -> None:
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _fill_each(fill: Callable[[nn.Conv2d], None], *convs: nn.Conv2d) -> None:
    for conv in convs:
        fill(conv)


FILLS: dict[str, Callable[..., None]] = {
    "delta": functools.partial(_fill_each, delta_fill),
    "delta_orthogonal": functools.partial(_fill_each, delta_orthogonal_fill),
    "fixup": fixup_fill,
    "msra": functools.partial(_fill_each, c2_msra_fill),
    "phase_shifted_delta": functools.partial(_fill_each, phase_shifted_delta_fill),
}
# These leave the 7x7 stem as PyTorch initializes it, as their authors' code does: with three input
# channels a delta would make most outputs zero or copies.
NOT_FOR_STEMS = ("delta", "delta_orthogonal", "phase_shifted_delta", "fixup")


def get_fill(init: str | Callable[..., None]) -> Callable[..., None]:
    """The initializer of one convolution, or of several in series: fill(conv1, conv2, ...).

    `init` is a name in FILLS, or such a callable. An unknown name raises a UserError.
    """
    if callable(init):
        return init
    check_name("MODEL.ISONET.INIT", init, FILLS)
    return FILLS[init]
