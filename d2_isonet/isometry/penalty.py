"""The orthogonal penalty of a convolution's weight, its closed-form gradient and its minimum.

ISONet (Qi et al. 2020, arXiv 2006.16992), section 2.2: `orthogonal_penalty` is eq. 13 without the
coefficient gamma, for any stride, dilation and number of groups. Its forms:

exact: the M x M Gram (eq. 13) at the multiples of the lag S' = stride / gcd(stride, dilation):
    stride^2 / (H W) * 1/2 ||K K^T - I||_F^2 with the matrix K of the convolution on a circular
    H x W image, for every shape, stride, dilation and number of groups.
official: what the authors' code computes (github.com/HaozhiQi/ISONet). It takes the C x C Gram
    (eq. 14) if C < M, lags from 1 - k in steps of the stride, and the identity at the middle lag.
    Up to a constant it equals the exact form if the stride or k is 1, or if C >= M, S' = stride and
    k - 1 is a multiple of it. The authors' code raises an error if groups > 1; here each group is
    a separate convolution.
flattened: eq. 16, 1/2 ||W W^T - I||_F^2 of the M x (C k k) matrix, which is lag 0 alone.
"""

import math
from collections.abc import Iterator, Sequence

import torch

from .criterion import Axes, Criterion, Pair, criterion_of, pair
from .frequency_domain import (
    products_by_frequency,
    products_by_lag,
    squares_and_gradient,
    squares_of_rows,
)


def orthogonal_penalty(
    weight: torch.Tensor, stride: Axes = 1, dilation: Axes = 1, groups: int = 1, form: str = "exact"
) -> torch.Tensor:
    """1/2 sum over lags and groups of ||G(lag) - delta(lag) I||_F^2, 0-dim; differentiable.

    G(lag)[m, m'] = sum_c sum_u w_mc(u) w_m'c(u + lag) is the entry of eq. 12 at that lag. With
    stride 1 the exact form is 0 if and only if eq. 10 holds: the adjoint of the convolution is an
    isometry (Theorem 1).

    Args:
        weight: (M, C / groups, kh, kw), as in nn.Conv2d. The weight of an nn.ConvTranspose2d is
            read as that of the convolution whose adjoint it is. Half precision is computed in
            float32.
        stride, dilation: int or (vertical, horizontal).
        form: "exact", "official" or "flattened", see the module.

    Raises:
        UserError: form is unknown, weight is not 4-dimensional, M is not a multiple of groups, or
            stride or dilation is not positive.
    """
    criterion = criterion_of(tuple(weight.shape), pair(stride), pair(dilation), groups, form)
    with torch.autocast(weight.device.type, enabled=False):
        residuals = _residuals(_to_blocks(weight, groups, criterion), criterion)
        squares = [count * residual.square().sum() for _, _, count, residual in residuals]
    return torch.stack(squares).sum() / 2 + criterion.constant


@torch.no_grad()
def orthogonal_penalty_and_gradient(
    weight: torch.Tensor, stride: Axes = 1, dilation: Axes = 1, groups: int = 1, form: str = "exact"
) -> tuple[torch.Tensor, torch.Tensor]:
    """`orthogonal_penalty` and its gradient in closed form, without an autograd graph.

    With R(lag) = G(lag) - delta(lag) I the gradient at tap u is
    sum over lags of R(lag) w(u + lag) + R(lag)^T w(u - lag); one R is in memory at a time.
    If every lag counts (S' = 1) and the kernel is 3 x 3 or larger, both are computed from the
    spectrum of the kernel (frequency_domain.py): the same numbers by 86 products of size
    M x M x C for 3 x 3, against 126 lag by lag and 3 k^4 = 243 by conv2d and its autograd.

    Arguments and errors are those of `orthogonal_penalty`.

    Returns:
        The penalty (0-dim, float64, so that a small excess over a large minimum keeps its digits),
        and its gradient (M, C / groups, kh, kw) in the wider of the weight's dtype and float32.
    """
    criterion = criterion_of(tuple(weight.shape), pair(stride), pair(dilation), groups, form)
    with torch.autocast(weight.device.type, enabled=False):
        blocks = _without_subnormal_products(_to_blocks(weight, groups, criterion))
        if _faster_by_frequency(blocks.shape[2:4], criterion):
            squares, gradient = squares_and_gradient(blocks)
        else:
            squares, gradient = _squares_and_gradient_by_lag(blocks, criterion)
        value = squares / 2 + criterion.constant
        return value, _from_blocks(gradient, weight.shape, criterion)


def _faster_by_frequency(kernel: Sequence[int], criterion: Criterion) -> bool:
    every_lag = math.prod(2 * k - 1 for k in kernel) // 2 + 1  # one of each pair (lag, -lag)
    all_count = criterion.identity_lag == (0, 0) and len(criterion.lags) == every_lag
    return all_count and products_by_frequency(kernel) < products_by_lag(kernel)


def _squares_and_gradient_by_lag(
    blocks: torch.Tensor, criterion: Criterion
) -> tuple[torch.Tensor, torch.Tensor]:
    gradient = torch.zeros_like(blocks)
    squares = []
    for here, there, multiplicity, residual in _residuals(blocks, criterion):
        residual = _without_subnormal_products(residual)
        squares.append(multiplicity * squares_of_rows(residual).sum())
        if here == there:  # lag 0: R is symmetric, both terms are equal
            gradient.add_(_apply(residual, blocks), alpha=2)
        else:
            gradient[here].add_(_apply(residual, blocks[there]), alpha=multiplicity)
            gradient[there].add_(_apply(residual.mT, blocks[here]), alpha=multiplicity)
    return torch.stack(squares).sum(), gradient


def minimum_orthogonal_penalty(
    shape: Sequence[int], stride: Axes = 1, dilation: Axes = 1, groups: int = 1, form: str = "exact"
) -> float:
    """The least value of `orthogonal_penalty` over all weights of this shape; it is attained.

    exact: groups / 2 * max(0, M - C min(kh, S'h) min(kw, S'w)), with M and C per group: the rank
        of the Gram at each frequency is at most that product, and filters of one tap attain it.
        For dilation 1 it is 0 exactly if Achour et al. 2022, JMLR 23(347), prove that an
        orthogonal convolution of this shape exists.
    flattened: groups / 2 * max(0, M - C kh kw), from the rank of the matrix.
    official: 0 if the identity stands at lag 0 (a delta kernel attains it). Otherwise (k - 1 is no
        multiple of the stride) G must be I at that lag and, if the opposite lag counts too, 0
        there, although one is the transpose of the other: groups * min(M, C) / 4, at G = I / 2.

    Arguments and errors are those of `orthogonal_penalty`; shape is (M, C / groups, kh, kw).
    """
    return criterion_of(tuple(shape), pair(stride), pair(dilation), groups, form).minimum


def _residuals(
    blocks: torch.Tensor, criterion: Criterion
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
    """`factor` with entries set to 0 whose products, or differences of them, may be subnormal.

    A CPU takes up to a hundred times as long for subnormal numbers, and they are common while
    training leaves a delta kernel, because its other taps are about 1e-20 then. The entries set
    to 0 are below 3e-16 in float32, beside entries of 1.
    """
    if factor.device.type != "cpu":
        return factor
    numbers = torch.finfo(factor.dtype)
    return torch.hardshrink(factor, math.sqrt(numbers.tiny / numbers.eps))


def _apply(residual: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    return torch.bmm(residual, taps.flatten(2)).view_as(taps)


def _to_blocks(weight: torch.Tensor, groups: int, criterion: Criterion) -> torch.Tensor:
    """(M, C / groups, kh, kw) -> (groups, rows, kh, kw, channels), at least float32."""
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    blocks = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    if criterion.taps_as_channels:
        blocks = blocks.flatten(2)[..., None, None]
    if criterion.columns:
        blocks = blocks.transpose(1, 2)
    return blocks.permute(0, 1, 3, 4, 2).contiguous()


def _from_blocks(blocks: torch.Tensor, shape: torch.Size, criterion: Criterion) -> torch.Tensor:
    """The inverse of `_to_blocks`."""
    weight = blocks.permute(0, 1, 4, 2, 3)
    return (weight.transpose(1, 2) if criterion.columns else weight).reshape(shape)
