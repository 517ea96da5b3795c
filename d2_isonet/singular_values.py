"""All singular values of a convolution as an operator, from its kernel's frequencies."""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch.nn.modules.utils import _pair

__all__ = ["convolution_singular_values"]

Pair = tuple[int, int]
_LARGEST_CHUNK = 1 << 22  # entries of the matrices decomposed in one call


@torch.no_grad()
def convolution_singular_values(
    weight: torch.Tensor,
    size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> torch.Tensor:
    """The singular values of x -> conv2d(x, weight) on a circular image, largest first.

    With A(w) = sum_u weight(u) e^{i w dilation u}, M x C, the operator is, in the Fourier basis,
    one M x (S^2 C) matrix for each of the (H / S) (W / S) frequencies v of the output:
    (A(v + 2 pi a / S) for a in {0 .. S-1}^2) / S, the S^2 frequencies that a stride S folds onto
    v side by side (per group). Sedghi et al. 2019 (arXiv 1805.10408) is stride 1.

    Args:
        weight: (M, C / groups, kh, kw), as in nn.Conv2d. nn.ConvTranspose2d's is read as the
            convolution whose adjoint it is, and which has the same singular values. Half
            precision is computed in float32.
        size: of the image that is convolved, int or (H, W), a multiple of the stride; smaller
            than the kernel is allowed, taps then wrap around.
        stride, dilation: int or (vertical, horizontal).

    Returns:
        (H W / S^2 * min(M, S^2 C)) of the weight's device: all min(rows, columns) of the operator,
        those that the shape forces to 0 included. NaN throughout where a weight is not finite.

    Raises:
        ValueError: size is not a positive multiple of the stride, or M not one of groups.
    """
    size, stride, dilation = _pair(size), _pair(stride), _pair(dilation)
    _check(weight, size, stride, groups)
    outputs = tuple(n // s for n, s in zip(size, stride, strict=True))
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    rows, channels = weight.shape[0] // groups, weight.shape[1]
    rank = min(rows, channels * math.prod(stride))
    if not torch.isfinite(weight).all():
        return weight.new_full((math.prod(outputs) * groups * rank,), math.nan)
    # A kernel of one row has the same A(w) in every row of frequencies.
    distinct = tuple(1 if k == 1 else n for n, k in zip(outputs, weight.shape[2:], strict=True))
    with torch.autocast(weight.device.type, enabled=False):
        parts = [
            torch.linalg.svdvals(symbol).repeat_interleave(repeats, 0).flatten()
            for symbol, repeats in _symbols(weight, distinct, stride, dilation, groups)
        ]
    values = torch.cat(parts).repeat(math.prod(outputs) // math.prod(distinct))
    return values.sort(descending=True).values


def _symbols(
    weight: torch.Tensor, outputs: Pair, stride: Pair, dilation: Pair, groups: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield ((frequencies, groups, M, S^2 C), how often each counts), chunk by chunk.

    A(-w) is the conjugate of A(w): of such a pair one is decomposed and counts twice.
    """
    taps = weight.reshape(groups, -1, *weight.shape[1:]).permute(3, 4, 0, 1, 2).flatten(0, 1)
    rows, columns = taps.shape[2], taps.shape[3] * math.prod(stride)
    pairs = _half(outputs)
    chunk = max(1, _LARGEST_CHUNK // (groups * rows * columns))
    for start in range(0, len(pairs), chunk):
        chosen = pairs[start : start + chunk]
        transform = _transform(
            [frequency for frequency, _ in chosen], outputs, stride, dilation, weight.shape[2:]
        )
        if transform.imag.any():
            transform = transform.to(weight.device, torch.promote_types(weight.dtype, torch.cfloat))
        else:  # frequencies 0 and pi alone
            transform = transform.real.to(weight.device, weight.dtype)
        symbol = torch.einsum("fat,tgmc->fgmac", transform, taps.to(transform.dtype))
        repeats = torch.tensor([count for _, count in chosen], device=weight.device)
        yield symbol.flatten(3), repeats


def _half(outputs: Pair) -> list[tuple[Pair, int]]:
    """(frequency, multiplicity), one of each w and -w."""
    pairs = []
    for frequency in itertools.product(*map(range, outputs)):
        opposite = tuple(-j % n for j, n in zip(frequency, outputs, strict=True))
        if frequency <= opposite:
            pairs.append((frequency, 1 if frequency == opposite else 2))
    return pairs


def _transform(
    frequencies: list[Pair], outputs: Pair, stride: Pair, dilation: Pair, kernel: Sequence[int]
) -> torch.Tensor:
    """e^{i w dilation u} / S of (frequency, alias a, tap u), complex128, on the CPU."""
    turns = [
        _numbers(n)[:, None, None].add(n * _numbers(s)[:, None]) * _numbers(k) * d / (n * s)
        for n, s, d, k in zip(outputs, stride, dilation, kernel, strict=True)
    ]
    row, column = torch.tensor(frequencies).T
    turns = turns[0][row][:, :, None, :, None] + turns[1][column][:, None, :, None, :]
    turns = turns.flatten(3).flatten(1, 2)
    phases = torch.polar(torch.ones_like(turns), 2 * math.pi * turns)
    phases.imag[(2 * turns) % 1 == 0] = 0  # what is real stays real: sin(pi) is 1e-16
    return phases / math.sqrt(math.prod(stride))


def _check(weight: torch.Tensor, size: Pair, stride: Pair, groups: int) -> None:
    if weight.dim() != 4 or groups < 1 or weight.shape[0] % groups:
        raise ValueError(
            f"the weight is {tuple(weight.shape)} with {groups} groups; it must be "
            "(M, C / groups, kh, kw) with M a multiple of the groups"
        )
    if any(n < 1 or n % s for n, s in zip(size, stride, strict=True)):
        raise ValueError(
            f"the image is {size[0]} x {size[1]} and the stride {stride}: on a circular image each "
            "size must be a positive multiple of the stride"
        )


def _numbers(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.float64)
