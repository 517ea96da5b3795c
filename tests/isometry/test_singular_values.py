"""Singular values by frequency are those of the operator written out as a matrix."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d2_isonet.isometry.penalty import minimum_orthogonal_penalty, orthogonal_penalty
from d2_isonet.isometry.singular_values import convolution_singular_values
from d2_isonet.layers.weight_init import delta_fill, delta_orthogonal_fill, phase_shifted_delta_fill

# (M, C, kh, kw), (H, W), stride, dilation, groups
CASES = {
    "3x3": ((4, 3, 3, 3), (6, 6), 1, 1, 1),
    "odd sizes": ((3, 5, 3, 3), (5, 7), 1, 1, 1),
    "one row of taps": ((4, 2, 1, 3), (4, 6), 1, 1, 1),
    "1x1": ((5, 3, 1, 1), (4, 3), 1, 1, 1),
    "1x1, stride 2": ((6, 4, 1, 1), (4, 6), 2, 1, 1),
    "even kernel": ((3, 4, 2, 2), (5, 4), 1, 1, 1),
    "even kernel, stride 2": ((5, 2, 4, 2), (6, 6), 2, 1, 1),
    "stride 2": ((6, 3, 3, 3), (6, 8), 2, 1, 1),
    "stride 3": ((4, 2, 3, 3), (6, 9), 3, 1, 1),
    "stride of the kernel": ((9, 2, 2, 2), (6, 4), 2, 1, 1),
    "strides of two axes": ((4, 3, 3, 3), (6, 5), (3, 1), (1, 2), 1),
    "dilation 2": ((4, 4, 3, 3), (7, 8), 1, 2, 1),
    "stride 2, dilation 2": ((4, 2, 3, 3), (8, 6), 2, 2, 1),
    "stride 2, dilation 3": ((4, 2, 3, 3), (8, 8), 2, 3, 1),
    "groups": ((6, 2, 3, 3), (4, 6), 1, 1, 3),
    "groups, stride 2": ((8, 2, 3, 3), (4, 4), 2, 1, 2),
    "depthwise": ((4, 1, 3, 3), (5, 5), 1, 1, 4),
    "smaller than the kernel": ((3, 3, 5, 5), (2, 3), 1, 1, 1),
    "7x7, stride 2": ((5, 3, 7, 7), (8, 8), 2, 1, 1),
}


def operator_matrix(weight, size, stride, dilation, groups):
    """K of x -> conv2d(x, weight) with circular padding, a row an output."""
    channels = weight.shape[1] * groups
    basis = torch.eye(channels * math.prod(size), dtype=weight.dtype).view(-1, channels, *size)
    reach = [
        (k - 1) * d for k, d in zip(weight.shape[2:], nn.modules.utils._pair(dilation), strict=True)
    ]
    tall = [
        -(-r // n) + 1 for r, n in zip(reach, size, strict=True)
    ]  # padding="circular" wraps once only
    wrapped = basis.repeat(1, 1, *tall)[:, :, : size[0] + reach[0], : size[1] + reach[1]]
    return F.conv2d(wrapped, weight, None, stride, 0, dilation, groups).flatten(1).T


@pytest.mark.parametrize("case", CASES)
def test_they_are_those_of_the_dense_operator(case):
    shape, size, *layer = CASES[case]
    weight = torch.randn(shape, dtype=torch.float64)
    expected = torch.linalg.svdvals(operator_matrix(weight, size, *layer))
    found = convolution_singular_values(weight, size, *layer)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", ["3x3", "1x1", "stride 2", "stride 3", "groups, stride 2"])
def test_the_penalty_is_what_they_lack_to_one(case):
    # ||K K^T - I||^2 of a circular image that no lag wraps around; K K^T has M H W / S^2 rows
    shape, _, stride, dilation, groups = CASES[case]
    weight, size = torch.randn(shape, dtype=torch.float64), 6 * stride
    found = convolution_singular_values(weight, size, stride, dilation, groups)
    rows = shape[0] * 36
    squares = (found.square() - 1).square().sum() + max(0, rows - len(found))
    penalty = orthogonal_penalty(weight, stride, dilation, groups)
    torch.testing.assert_close(squares / 36 / 2, penalty, rtol=1e-12, atol=0)


@pytest.mark.parametrize("fill", [delta_fill, delta_orthogonal_fill, phase_shifted_delta_fill])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_isometric_kernel_has_ones_and_what_the_shape_forces_to_zero(fill, stride):
    conv = nn.Conv2d(4, 4, 3, stride, bias=False)
    fill(conv)
    found = convolution_singular_values(conv.weight, 8, stride)
    torch.testing.assert_close(found, torch.ones(4 * (8 // stride) ** 2), rtol=0, atol=1e-6)


def test_a_strided_delta_of_more_outputs_leaves_them_zero():
    conv = nn.Conv2d(3, 5, 3, 2, bias=False)
    delta_fill(conv)
    found = convolution_singular_values(conv.weight, 4, 2)
    assert found.tolist() == pytest.approx([1.0] * 12 + [0.0] * 8, abs=1e-6)
    assert minimum_orthogonal_penalty(conv.weight.shape, 2) == 0  # another kernel has none


def test_transposed_convolution_has_those_of_its_adjoint():
    up = nn.ConvTranspose2d(3, 2, 2, 2, bias=False).double()
    basis = torch.eye(3 * 9, dtype=torch.float64).view(-1, 3, 3, 3)
    expected = torch.linalg.svdvals(up(basis).flatten(1).T)
    found = convolution_singular_values(up.weight, 6, 2)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_half_precision_is_computed_in_float32():
    weight = torch.randn(4, 3, 3, 3).bfloat16()
    found = convolution_singular_values(weight, 4)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, convolution_singular_values(weight.float(), 4))


def test_frequencies_in_chunks_are_the_same(monkeypatch):
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    expected = convolution_singular_values(weight, 6)
    monkeypatch.setattr("d2_isonet.isometry.singular_values._LARGEST_CHUNK", 40)
    torch.testing.assert_close(convolution_singular_values(weight, 6), expected)


def test_weight_that_is_not_finite_has_none():
    weight = torch.ones(2, 2, 3, 3)
    weight[0, 0, 0, 0] = math.inf
    found = convolution_singular_values(weight, 4, 2)
    assert len(found) == 8 and found.isnan().all()


@pytest.mark.parametrize(
    ("size", "stride", "groups", "message"),
    [
        (7, 2, 1, r"7 x 7 and the stride \(2, 2\).*multiple of the stride"),
        ((6, 4), (3, 3), 1, r"6 x 4 and the stride \(3, 3\)"),
        (0, 1, 1, "0 x 0"),
        (4, 1, 3, "with 3 groups"),
    ],
)
def test_a_size_that_the_stride_does_not_divide_is_refused(size, stride, groups, message):
    # the operator would not commute with the shifts of its output grid
    with pytest.raises(ValueError, match=message):
        convolution_singular_values(torch.ones(4, 2, 3, 3), size, stride, 1, groups)
