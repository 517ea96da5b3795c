"""Orthogonal convolution: the penalty, its closed-form gradient and its minimum."""

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

from d2_isonet.utils.messages import UserError

from .frequency_domain import (
    products_by_frequency,
    products_by_lag,
    squares_and_gradient,
    squares_of_rows,
)

__all__ = [
    "FORMS",
    "minimum_orthogonal_penalty",
    "orthogonal_penalty",
    "orthogonal_penalty_and_gradient",
]
FORMS = ("exact", "official", "flattened")
Pair = tuple[int, int]


def orthogonal_penalty(
    weight: torch.Tensor,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    form: str = "exact",
) -> torch.Tensor:
    """1/2 sum over lags and groups of ||G(lag) - delta(lag) I||_F^2, differentiable by autograd.

    G(lag)[m, m'] = sum_c sum_u w_mc(u) w_m'c(u + lag) is what eq. 12 of the ISONet paper
    (arXiv 2006.16992) holds at each lag; all lags zero is eq. 10: A* is an isometry.

    exact: the M x M Gram at the lags that are multiples of S' = stride / gcd(stride, dilation).
        On a circular H x W image with operator matrix K this is
        stride^2 / (H W) * 1/2 ||K K^T - I||_F^2, for every shape, stride, dilation and groups.
    official: what the authors' code computes. Eq. 14 (the C x C Gram) where C < M, lags from
        1 - k in steps of the plain stride, the identity in the middle. It is the exact form
        up to a constant, except for C < M with stride > 1 and k > 1. Their code
        raises for groups > 1; here each group is read as a convolution of its own.
    flattened: eq. 16, ||W W^T - I||^2 of the M x (C k k) matrix: the exact form's lag 0 alone.

    Args:
        weight: (M, C / groups, kh, kw), as in nn.Conv2d. nn.ConvTranspose2d's weight is read
            as the convolution whose adjoint it is. Half precision is computed in float32.
        stride, dilation: int or (vertical, horizontal).

    Returns:
        0-dim tensor.

    Raises:
        UserError: unknown form, weight not 4-dimensional, M not a multiple of groups.
    """
    criterion = _criterion(tuple(weight.shape), pair(stride), pair(dilation), groups, form)
    with torch.autocast(weight.device.type, enabled=False):
        blocks = _to_blocks(weight, groups, criterion)
        squares = [
            multiplicity * residual.square().sum()
            for _, _, multiplicity, residual in _residuals(blocks, criterion)
        ]
    return torch.stack(squares).sum() / 2 + criterion.constant


@torch.no_grad()
def orthogonal_penalty_and_gradient(
    weight: torch.Tensor,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    form: str = "exact",
) -> tuple[torch.Tensor, torch.Tensor]:
    """`orthogonal_penalty` and its gradient in closed form, without an autograd graph.

    With R(lag) = G(lag) - delta(lag) I the gradient is
    sum over lags of R(lag) w(u + lag) + R(lag)^T w(u - lag); one R is held at a time.
    Where every lag counts (stride 1) and the kernel is 3 x 3 or larger, both come from the
    kernel's spectrum instead (frequency_domain.py): the same numbers by 86 products of size
    M x M x C for 3 x 3, against 126 lag by lag and 3 k^4 = 243 by conv2d and its autograd.

    Returns:
        the penalty (0-dim, summed in float64: a small excess beside a large minimum keeps its
        digits) and the gradient, of the weight's shape, in the weight's dtype or float32,
        whichever is wider. Arguments and errors are those of `orthogonal_penalty`.
    """
    criterion = _criterion(tuple(weight.shape), pair(stride), pair(dilation), groups, form)
    with torch.autocast(weight.device.type, enabled=False):
        blocks = _without_subnormal_products(_to_blocks(weight, groups, criterion))
        if _faster_by_frequency(blocks.shape[2:4], criterion):
            squares, gradient = squares_and_gradient(blocks)
        else:
            squares, gradient = _squares_and_gradient_by_lag(blocks, criterion)
        value = squares / 2 + criterion.constant
        return value, _from_blocks(gradient, weight.shape, criterion)


def _faster_by_frequency(kernel: Sequence[int], criterion: "_Criterion") -> bool:
    every_lag = math.prod(2 * k - 1 for k in kernel) // 2 + 1  # of each pair +lag, -lag one
    return (
        criterion.identity_lag == (0, 0)
        and len(criterion.lags) == every_lag
        and products_by_frequency(kernel) < products_by_lag(kernel)
    )


def _squares_and_gradient_by_lag(
    blocks: torch.Tensor, criterion: "_Criterion"
) -> tuple[torch.Tensor, torch.Tensor]:
    gradient = torch.zeros_like(blocks)
    squares = []
    for here, there, multiplicity, residual in _residuals(blocks, criterion):
        residual = _without_subnormal_products(residual)
        squares.append(multiplicity * squares_of_rows(residual).sum())
        if here == there:  # lag 0: R is symmetric, the two terms are one
            gradient.add_(_apply(residual, blocks), alpha=2)
        else:
            gradient[here].add_(_apply(residual, blocks[there]), alpha=multiplicity)
            gradient[there].add_(_apply(residual.mT, blocks[here]), alpha=multiplicity)
    return torch.stack(squares).sum(), gradient


def minimum_orthogonal_penalty(
    weight_shape: Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    form: str = "exact",
) -> float:
    """The least value `orthogonal_penalty` takes on this shape; all of these are attained.

    exact: groups / 2 * max(0, M - C min(kh, S'h) min(kw, S'w)), M and C per group: at each
        frequency the Gram has the rank of that many columns, and one-tap filters reach it.
    flattened: groups / 2 * max(0, M - C kh kw), the rank of the matrix.
    official: 0 wherever its identity sits at lag 0 (a delta kernel). Where it does not
        (k - 1 no multiple of the stride) the same G is wanted as I at that lag and, if it is
        among the lags too, as 0 at the opposite one: groups * min(M, C) / 4, by G = I / 2.
    """
    shape = tuple(weight_shape)
    return _criterion(shape, pair(stride), pair(dilation), groups, form).minimum


class _Criterion(NamedTuple):
    """Which Gram is compared with the identity, and at which lags."""

    lags: tuple[tuple[Pair, int], ...]  # (lag, how often it counts)
    identity_lag: Pair
    columns: bool  # C x C Gram of the transposed kernel
    taps_as_channels: bool
    constant: float  # what the columns' value lacks
    minimum: float


@lru_cache(maxsize=1024)  # a hook asks for the same few layers at every step
def _criterion(
    shape: tuple[int, ...], stride: Pair, dilation: Pair, groups: int, form: str
) -> _Criterion:
    if form not in FORMS:
        raise UserError(f"unknown form of the orthogonal penalty {form!r}", f"choose from {FORMS}")
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
) -> _Criterion:
    # A step that leaves the kernel makes every tap a channel of its own, as in a patch embedding.
    flattened = flattened or all(k <= s for k, s in zip(kernel, step, strict=True))
    if flattened:
        channels, kernel, step = channels * math.prod(kernel), (1, 1), (1, 1)
    # With no lag left out, the C x C Gram has the same gradient and M - C less in the square.
    all_lags = all(k == 1 or s == 1 for k, s in zip(kernel, step, strict=True))
    columns = all_lags and channels < rows
    reach = [(k - 1) // s * s for k, s in zip(kernel, step, strict=True)]
    axes = [range(-r, r + 1, s) for r, s in zip(reach, step, strict=True)]
    rank = channels * math.prod(map(min, kernel, step))
    return _Criterion(
        _fold(axes, (0, 0)),
        identity_lag=(0, 0),
        columns=columns,
        taps_as_channels=flattened,
        constant=groups * (rows - channels) / 2 if columns else 0.0,
        minimum=groups * max(0, rows - rank) / 2,
    )


def _official_criterion(
    rows: int, channels: int, kernel: Pair, stride: Pair, groups: int
) -> _Criterion:
    axes = [range(1 - k, k, s) for k, s in zip(kernel, stride, strict=True)]
    identity_lag = (axes[0][len(axes[0]) // 2], axes[1][len(axes[1]) // 2])
    contradicted = identity_lag != (0, 0) and all(
        -lag in axis for lag, axis in zip(identity_lag, axes, strict=True)
    )
    return _Criterion(
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
    # G(-lag) = G(lag)^T, and the axes are symmetric: half of the lags say everything.
    return tuple((lag, 1 if lag == (0, 0) else 2) for lag in lags if lag >= (0, 0))


def _residuals(
    blocks: torch.Tensor, criterion: _Criterion
) -> Iterator[tuple[tuple, tuple, int, torch.Tensor]]:
    """Yield (taps u, taps u + lag, multiplicity, R(lag) of shape (groups, rows, rows))."""
    for lag, multiplicity in criterion.lags:
        here, there = _overlap(blocks.shape[2:4], lag)
        residual = torch.bmm(blocks[here].flatten(2), blocks[there].flatten(2).mT)
        if lag == criterion.identity_lag:
            residual.diagonal(dim1=-2, dim2=-1).sub_(1)
        yield here, there, multiplicity, residual


def _overlap(kernel: Sequence[int], lag: Pair) -> tuple[tuple, tuple]:
    here = [slice(max(0, -step), min(k, k - step)) for k, step in zip(kernel, lag, strict=True)]
    there = [slice(max(0, step), min(k, k + step)) for k, step in zip(kernel, lag, strict=True)]
    every = slice(None)
    return (every, every, *here), (every, every, *there)


def _without_subnormal_products(factor: torch.Tensor) -> torch.Tensor:
    """`factor` with 0 for what is so small that products, or their differences, are subnormal.

    A processor takes up to a hundred times as long for those, and they are the rule while
    training leaves a delta kernel, whose other taps then are 1e-20. What is dropped is below
    3e-16 in float32, beside entries of 1.
    """
    if factor.device.type != "cpu":
        return factor
    numbers = torch.finfo(factor.dtype)
    return torch.hardshrink(factor, math.sqrt(numbers.tiny / numbers.eps))


def _apply(residual: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    return torch.bmm(residual, taps.flatten(2)).view_as(taps)


def _to_blocks(weight: torch.Tensor, groups: int, criterion: _Criterion) -> torch.Tensor:
    """(M, C / groups, kh, kw) to (groups, rows, kh, kw, channels summed over)."""
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    blocks = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    if criterion.taps_as_channels:
        blocks = blocks.flatten(2)[..., None, None]
    if criterion.columns:
        blocks = blocks.transpose(1, 2)
    return blocks.permute(0, 1, 3, 4, 2).contiguous()


def _from_blocks(
    blocks: torch.Tensor, weight_shape: torch.Size, criterion: _Criterion
) -> torch.Tensor:
    weight = blocks.permute(0, 1, 4, 2, 3)
    if criterion.columns:
        weight = weight.transpose(1, 2)
    return weight.reshape(weight_shape)


def pair(value: int | Sequence[int]) -> Pair:
    vertical, horizontal = (value, value) if isinstance(value, int) else value
    return vertical, horizontal
