"""The spectrum's penalty and gradient against the products lag by lag, and what they cost."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from d2_isonet.isometry.criterion import criterion_of
from d2_isonet.isometry.frequency_domain import (
    products_by_frequency,
    products_by_lag,
    squares_and_gradient,
)
from d2_isonet.isometry.penalty import (
    _squares_and_gradient_by_lag,
    orthogonal_penalty_and_gradient,
)

# (groups, rows, kh, kw, channels)
BLOCKS = [
    (1, 4, 3, 3, 5),
    (1, 5, 3, 3, 4),
    (3, 2, 3, 3, 2),
    (1, 1, 3, 3, 1),
    (1, 3, 2, 2, 4),
    (2, 3, 2, 3, 2),
    (1, 3, 4, 1, 2),
    (1, 2, 5, 3, 3),
    (1, 2, 7, 7, 2),
]


def by_lag(blocks):
    groups, rows, *kernel, channels = blocks.shape
    # Never the transposed Gram: the blocks are what is compared, not a weight.
    shape = (groups * rows, max(channels, rows), *kernel)
    return _squares_and_gradient_by_lag(
        blocks, criterion_of(shape, (1, 1), (1, 1), groups, "exact")
    )


@pytest.mark.parametrize("shape", BLOCKS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_the_spectrum_gives_the_numbers_of_all_lags(shape, scale):
    blocks = scale * torch.randn(shape, dtype=torch.float64)
    squares, gradient = squares_and_gradient(blocks)
    expected_squares, expected_gradient = by_lag(blocks)
    torch.testing.assert_close(squares, expected_squares, rtol=1e-12, atol=1e-12)
    largest = expected_gradient.abs().max().item()
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-11, atol=1e-13 * largest)


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.1])
def test_float32_keeps_its_digits_beside_a_delta_kernel(noise):
    weight = noise * torch.randn(16, 16, 3, 3)
    weight[range(16), range(16), 1, 1] += 1
    value, gradient = orthogonal_penalty_and_gradient(weight)
    expected, expected_gradient = orthogonal_penalty_and_gradient(weight.double())
    rounding = 1e-7 / noise  # the residual is the difference of a product near 1 and 1
    assert value.item() == pytest.approx(expected.item(), rel=10 * rounding)
    error = (gradient - expected_gradient).norm() / expected_gradient.norm()
    assert error < 10 * rounding


def test_a_delta_kernel_has_no_penalty_and_no_gradient_at_all():
    weight = torch.nn.init.dirac_(torch.empty(6, 6, 3, 3))
    value, gradient = orthogonal_penalty_and_gradient(weight)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_under_autocast_are_computed_in_float32(dtype):
    weight = torch.randn(8, 8, 3, 3).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = orthogonal_penalty_and_gradient(weight)
    expected, expected_gradient = orthogonal_penalty_and_gradient(weight.double())
    assert gradient.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    largest = expected_gradient.abs().max().item()
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("layout", ["channels_last", "slice", "transposed"])
def test_any_memory_layout_gives_the_same(layout):
    weight = torch.randn(6, 6, 3, 3, dtype=torch.float64)
    if layout == "channels_last":
        other = weight.contiguous(memory_format=torch.channels_last)
    elif layout == "slice":
        other = torch.randn(12, 6, 3, 5, dtype=torch.float64)[::2, :, :, 1:4].copy_(weight)
    else:
        other = weight.mT.contiguous().mT
    assert other.stride() != weight.stride()
    for ours, expected in zip(
        orthogonal_penalty_and_gradient(other), orthogonal_penalty_and_gradient(weight), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-13)


def multiplications(function, *arguments) -> int:
    def batched(_, left, right, **__):  # what torch counts out of place only
        return 2 * math.prod(left) * right[-1]

    in_place = {torch.ops.aten.baddbmm_: batched}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        function(*arguments)
    return counter.get_total_flops() // 2


def test_the_products_are_those_that_are_counted():
    kernel, rows, channels = (3, 3), 6, 10
    assert (products_by_frequency(kernel), products_by_lag(kernel)) == (86, 126)
    frequencies, taps = math.prod(2 * k - 1 for k in kernel), math.prod(kernel)
    blocks = torch.randn(1, rows, *kernel, channels)
    transforms = 2 * frequencies * taps * rows * channels
    product = rows * rows * channels
    assert multiplications(squares_and_gradient, blocks) == 86 * product + transforms
    assert multiplications(by_lag, blocks) == 126 * product
