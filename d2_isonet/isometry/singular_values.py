"""All singular values of a convolution as an operator, from the spectrum of its kernel.

In the Fourier basis and per group, the operator is one M x (P C) matrix at each of the
(H / S) (W / S) frequencies v of the output. It concatenates P <= S^2 parts. Part p is the sum of
weight(u) e^{i v (dilation u - p) / S} over the taps u with dilation u = p mod S: the same pixels.
(A unitary map of the input takes these parts to the S^2 frequencies that a stride folds onto v.)
With stride 1 there is one part: the theorem of Sedghi et al. 2019, arXiv 1805.10408.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch

from d2_isonet.utils.messages import UserError

from .criterion import Axes, Pair, pair

_LARGEST_CHUNK = 1 << 22  # entries of the matrices decomposed in one call


@torch.no_grad()
def convolution_singular_values(
    weight: torch.Tensor, size: Axes, stride: Axes = 1, dilation: Axes = 1, groups: int = 1
) -> torch.Tensor:
    """The singular values of x -> conv2d(x, weight) on a circular image, largest first.

    Args:
        weight: (M, C / groups, kh, kw) of an nn.Conv2d, or of the nn.ConvTranspose2d that is its
            adjoint and has the same singular values. Half precision is computed in float32.
        size: of the input image, int or (H, W), a multiple of the stride. If it is smaller than the
            kernel, the taps wrap around.
        stride, dilation: int or (vertical, horizontal).

    Returns:
        (H W / S^2 * min(M, S^2 C),) on the device of the weight, also the values that the shape
        forces to 0. All are NaN if the weight is not finite.

    Raises:
        UserError: weight is not 4-dimensional, M is not a multiple of groups, or size is not a
            positive multiple of the stride.
    """
    size, stride, dilation = pair(size), pair(stride), pair(dilation)
    _check(weight, size, stride, groups)
    outputs = (size[0] // stride[0], size[1] // stride[1])
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    rows, channels = weight.shape[0] // groups, weight.shape[1]
    number = math.prod(outputs) * groups * min(rows, channels * math.prod(stride))
    if not torch.isfinite(weight).all():
        return weight.new_full((number,), math.nan)
    # A kernel of one row has the same matrix in every row of frequencies.
    distinct = pair([1 if k == 1 else n for n, k in zip(outputs, weight.shape[2:], strict=True)])
    with torch.autocast(weight.device.type, enabled=False):
        parts = [
            _singular_values(symbol).repeat_interleave(repeats, 0).flatten().to(weight.dtype)
            for symbol, repeats in _symbols(weight, distinct, stride, dilation, groups)
        ]
    values = torch.cat(parts).repeat(math.prod(outputs) // math.prod(distinct))
    values = values.sort(descending=True).values
    return torch.cat([values, values.new_zeros(number - len(values))])  # of unread pixels


def _singular_values(matrices: torch.Tensor) -> torch.Tensor:
    """Of (..., rows, columns); errors are 1e-7 of the largest in float32, 1e-15 in float64."""
    if matrices.dtype != torch.float32:
        return torch.linalg.svdvals(matrices)
    # eigenvalues of the smaller Gram: as exact, up to 5 x faster
    wide = matrices.double() if matrices.shape[-2] <= matrices.shape[-1] else matrices.double().mT
    return torch.linalg.eigvalsh(wide @ wide.mT).clamp(min=0).sqrt()


def _symbols(
    weight: torch.Tensor, outputs: Pair, stride: Pair, dilation: Pair, groups: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield ((frequencies, groups, M / groups, P C / groups), multiplicities) in chunks.

    The matrix at -v is the conjugate of that at v: one of the two is decomposed and counts twice.
    """
    taps = weight.reshape(groups, -1, *weight.shape[1:]).permute(3, 4, 0, 1, 2).flatten(0, 1)
    pairs = _half(outputs)
    transform = _transform([v for v, _ in pairs], outputs, stride, dilation, weight.shape[2:])
    repeats = torch.tensor([count for _, count in pairs], device=weight.device)
    if transform.imag.any():
        transform = transform.to(weight.device, torch.promote_types(weight.dtype, torch.cfloat))
    else:  # frequencies 0 and pi alone
        transform = transform.real.to(weight.device, weight.dtype)
    chunk = max(1, _LARGEST_CHUNK // (weight[:, :, 0, 0].numel() * transform.shape[1]))
    for part, counts in zip(transform.split(chunk), repeats.split(chunk), strict=True):
        symbol = torch.einsum("fpt,tgmc->fgmpc", part, taps.to(part.dtype))
        yield symbol.flatten(3), counts


def _half(outputs: Pair) -> list[tuple[Pair, int]]:
    """(frequency, multiplicity) of one of each v and -v."""
    pairs = []
    for frequency in itertools.product(range(outputs[0]), range(outputs[1])):
        opposite = (-frequency[0] % outputs[0], -frequency[1] % outputs[1])
        if frequency <= opposite:
            pairs.append((frequency, 1 if frequency == opposite else 2))
    return pairs


def _transform(
    frequencies: list[Pair], outputs: Pair, stride: Pair, dilation: Pair, kernel: Sequence[int]
) -> torch.Tensor:
    """(frequencies v, parts p, taps u), complex128: the phase of u if it is in part p, else 0."""
    turns, members = [], []
    for n, s, d, k in zip(outputs, stride, dilation, kernel, strict=True):
        reach = d * torch.arange(k)
        turns.append(torch.arange(n, dtype=torch.float64)[:, None] * (reach // s) / n)
        members.append((reach % s).unique()[:, None] == reach % s)
    row, column = torch.tensor(frequencies).T
    angle = turns[0][row][:, :, None] + turns[1][column][:, None, :]
    phases = torch.polar(torch.ones_like(angle), 2 * math.pi * angle).flatten(1)
    phases.imag[(2 * angle.flatten(1)) % 1 == 0] = 0  # real phases stay real: sin(pi) is 1e-16
    return phases[:, None, :] * torch.kron(members[0].long(), members[1].long())


def _check(weight: torch.Tensor, size: Pair, stride: Pair, groups: int) -> None:
    if weight.dim() != 4 or groups < 1 or weight.shape[0] % groups:
        what = f"the weight is {tuple(weight.shape)} with {groups} groups"
        raise UserError(what, "it must be (M, C / groups, kh, kw) with M a multiple of the groups")
    if any(n < 1 or n % s for n, s in zip(size, stride, strict=True)):
        remedy = "on a circular image each size must be a positive multiple of the stride"
        raise UserError(f"the image is {size[0]} x {size[1]} and the stride {stride}", remedy)
