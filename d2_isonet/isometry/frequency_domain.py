"""The orthogonal penalty at all lags, and its gradient, from the spectrum of the kernel.

A(w) = sum_u w(u) e^{i w u}, an M x C matrix at each of N frequencies w: a grid of 2 k - 1
frequencies per axis, on which no lag wraps around. By Parseval's theorem
sum over lags ||G(lag) - delta(lag) I||_F^2 = 1 / N sum over w ||A A^H - I||_F^2.
A(-w) is the conjugate of A(w): one real and (N - 1) / 2 complex frequencies are enough.
"""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import torch


def products_by_frequency(kernel: Sequence[int]) -> int:
    """Number of real products of size M x M x C for a kernel (kh, kw), all frequencies together.

    A complex frequency takes 3 (the Gram) and 4 (the gradient), the real one 1 and 1.
    """
    return 2 + 7 * (math.prod(2 * k - 1 for k in kernel) // 2)


def products_by_lag(kernel: Sequence[int]) -> int:
    """The same number if computed lag by lag, with one product per pair of taps.

    The Gram takes half of the pairs, because G(-lag) = G(lag)^T, and the gradient all of them.
    """
    overlaps = math.prod(k * k for k in kernel)
    return (overlaps + math.prod(kernel)) // 2 + overlaps


def squares_and_gradient(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """sum over all lags of ||G(lag) - delta(lag) I||_F^2, and the gradient of half of it.

    The gradient at tap u of the kernel is 2 / N sum over w e^{-i w u} (A A^H - I) A.

    Args:
        blocks: (groups, rows, kh, kw, channels), float32 or wider; G sums over channels.

    Returns:
        The squares (0-dim, float64), and the gradient, of the shape of `blocks`.
    """
    groups, kernel = blocks.shape[0], tuple(blocks.shape[2:4])
    transform, adjoint = _transforms(kernel, blocks.dtype, blocks.device)
    taps = blocks.permute(2, 3, 0, 1, 4)
    spectrum = (transform @ taps.reshape(math.prod(kernel), -1)).view(-1, *taps.shape[3:])
    split = (len(transform) + 1) // 2 * groups
    real, imaginary = spectrum[:split], spectrum[split:]  # the real frequency is the first
    residual = _residual(real, imaginary, groups)
    rows = squares_of_rows(residual)
    # each complex frequency counts for its conjugate too
    squares = (2 * rows.sum() - rows[:groups].sum()) / len(transform)
    product = torch.empty_like(spectrum)
    _multiply(residual[:split], residual[split:], real, imaginary, product)
    gradient = adjoint @ product.view(len(transform), -1)
    return squares, gradient.view(taps.shape).permute(2, 3, 0, 1, 4)


def _residual(real: torch.Tensor, imaginary: torch.Tensor, groups: int) -> torch.Tensor:
    """A A^H - I: its real (symmetric) parts, then its imaginary (antisymmetric) ones.

    Args:
        real, imaginary: parts of A, (frequencies * groups, rows, channels). The first `groups`
            entries of `real` belong to the zero frequency, which has no imaginary part.
    """
    rows = real.shape[1]
    residual = real.new_empty(len(real) + len(imaginary), rows, rows)
    symmetric, antisymmetric = residual.split([len(real), len(imaginary)])
    torch.bmm(real, real.mT, out=symmetric)
    symmetric[groups:].baddbmm_(imaginary, imaginary.mT)
    symmetric.diagonal(dim1=-2, dim2=-1).sub_(1)
    cross = torch.bmm(imaginary, real[groups:].mT)
    torch.sub(cross, cross.mT, out=antisymmetric)
    return residual


def squares_of_rows(matrices: torch.Tensor) -> torch.Tensor:
    """|row|^2 of each row, float64, so that their sum keeps its digits; copies no matrix."""
    return torch.linalg.vector_norm(matrices, dim=-1).double().square()


def _multiply(symmetric, antisymmetric, real, imaginary, out: torch.Tensor) -> None:
    """out = (A A^H - I) A: the real parts, then the imaginary ones."""
    groups = len(real) - len(imaginary)
    torch.bmm(symmetric, real, out=out[: len(real)])
    out[groups : len(real)].baddbmm_(antisymmetric, imaginary, alpha=-1)
    torch.bmm(symmetric[groups:], imaginary, out=out[len(real) :])
    out[len(real) :].baddbmm_(antisymmetric, real[groups:])


@lru_cache(maxsize=64)
def _transforms(
    kernel: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, kh kw): cosines, then sines, zero frequency first; (kh kw, N): from A to the gradient.

    Phases are relative to the middle tap: a delta kernel has A(w) = I without rounding.
    """
    size = [2 * k - 1 for k in kernel]
    half = [w for w in itertools.product(*(range(1 - k, k) for k in kernel)) if w >= (0, 0)]
    taps = itertools.product(*(range(-(k // 2), k - k // 2) for k in kernel))
    steps = torch.tensor(half, dtype=torch.float64) / torch.tensor(size, dtype=torch.float64)
    angles = 2 * math.pi * steps @ torch.tensor(list(taps), dtype=torch.float64).T
    transform = torch.cat([angles.cos(), angles[1:].sin()])
    weights = torch.full((len(transform), 1), 4.0 / len(transform), dtype=torch.float64)
    weights[0] /= 2
    return transform.to(device, dtype), (transform * weights).mT.to(device, dtype)
