"""Which Gram of a convolution's weight is compared with the identity, and at which lags."""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from torch import nn

from d2_isonet.config.options import check_name
from d2_isonet.utils.messages import UserError

FORMS = ("exact", "official", "flattened")
Axes = int | Sequence[int]  # one number for both axes, or (vertical, horizontal)
Pair = tuple[int, int]  # vertical, horizontal
Layer = tuple[Pair, Pair, int]  # stride, dilation, groups
Convolution = nn.Conv2d | nn.ConvTranspose2d


def pair(value: Axes) -> Pair:
    """(vertical, horizontal) of an option that is given once for both axes or per axis."""
    vertical, horizontal = (value, value) if isinstance(value, int) else value
    return vertical, horizontal


def layer_of(conv: Convolution) -> Layer:
    """(stride, dilation, groups) of a convolution, as the functions on weights take them."""
    return pair(conv.stride), pair(conv.dilation), conv.groups


class Criterion(NamedTuple):
    """The penalty is 1/2 sum of multiplicity * ||G(lag) - delta(lag - identity_lag) I||_F^2."""

    lags: tuple[tuple[Pair, int], ...]  # (lag, multiplicity)
    identity_lag: Pair
    columns: bool  # G is the C x C Gram of eq. 14, not the M x M Gram of eq. 13
    taps_as_channels: bool  # G is that of the M x (C kh kw) matrix (eq. 16)
    constant: float  # added to the penalty: the M x M Gram's value minus the C x C Gram's
    minimum: float  # the least value of the penalty


@lru_cache(maxsize=1024)  # the regularizer needs the same few layers at every step
def criterion_of(
    shape: tuple[int, ...], stride: Pair, dilation: Pair, groups: int, form: str
) -> Criterion:
    """The criterion of a form of the penalty, see `orthogonal_penalty` and its minimum.

    Args:
        shape: of the weight, (M, C / groups, kh, kw).

    Raises:
        UserError: as `orthogonal_penalty`.
    """
    check_name("The form of the orthogonal penalty", form, FORMS)
    if len(shape) != 4:
        raise UserError("weight must be (M, C / groups, kh, kw), 4-dimensional", f"got {shape}")
    if groups < 1 or shape[0] % groups:
        raise UserError(f"{shape[0]} output channels cannot be split into {groups} groups")
    if min(stride + dilation) < 1:
        raise UserError("stride and dilation must be positive", f"got {stride} and {dilation}")
    rows, channels, kernel = shape[0] // groups, shape[1], (shape[2], shape[3])
    if form == "official":
        return _official_criterion(rows, channels, kernel, stride, groups)
    step_y, step_x = (s // math.gcd(s, d) for s, d in zip(stride, dilation, strict=True))
    return _exact_criterion(rows, channels, kernel, (step_y, step_x), groups, form == "flattened")


def _exact_criterion(
    rows: int, channels: int, kernel: Pair, step: Pair, groups: int, flattened: bool
) -> Criterion:
    """The lags are the multiples of step = S', up to the size of the kernel."""
    # If no two taps are a step apart, every tap is a channel of its own, as in a patch embedding.
    flattened = flattened or all(k <= s for k, s in zip(kernel, step, strict=True))
    if flattened:
        channels, kernel, step = channels * math.prod(kernel), (1, 1), (1, 1)
    # If all lags count, the C x C Gram has the same gradient and a square that is M - C smaller.
    all_lags = all(k == 1 or s == 1 for k, s in zip(kernel, step, strict=True))
    columns = all_lags and channels < rows
    reach = [(k - 1) // s * s for k, s in zip(kernel, step, strict=True)]
    axes = [range(-r, r + 1, s) for r, s in zip(reach, step, strict=True)]
    rank = channels * math.prod(map(min, kernel, step))
    return Criterion(
        _fold(axes, (0, 0)),
        identity_lag=(0, 0),
        columns=columns,
        taps_as_channels=flattened,
        constant=groups * (rows - channels) / 2 if columns else 0.0,
        minimum=groups * max(0, rows - rank) / 2,
    )


def _official_criterion(
    rows: int, channels: int, kernel: Pair, stride: Pair, groups: int
) -> Criterion:
    """The lags start at 1 - k and need not contain lag 0; the middle one is compared with I."""
    axes = [range(1 - k, k, s) for k, s in zip(kernel, stride, strict=True)]
    identity_lag = (axes[0][len(axes[0]) // 2], axes[1][len(axes[1]) // 2])
    contradicted = identity_lag != (0, 0) and all(
        -lag in axis for lag, axis in zip(identity_lag, axes, strict=True)
    )
    return Criterion(
        _fold(axes, identity_lag),
        identity_lag,
        columns=channels < rows,
        taps_as_channels=False,
        constant=0.0,
        minimum=groups * min(rows, channels) / 4 if contradicted else 0.0,
    )


def _fold(axes: Sequence[range], identity_lag: Pair) -> tuple[tuple[Pair, int], ...]:
    vertical, horizontal = axes
    lags = list(itertools.product(vertical, horizontal))
    if identity_lag != (0, 0):
        return tuple((lag, 1) for lag in lags)
    # G(-lag) = G(lag)^T, and the axes are symmetric: half of the lags are enough.
    return tuple((lag, 1 if lag == (0, 0) else 2) for lag in lags if lag >= (0, 0))
