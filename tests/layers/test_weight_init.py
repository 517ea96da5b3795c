"""Initializers: delta and its relatives against the operators they define; Fixup's scales."""

import math
import pickle

import pytest
import torch
from dense_operators import operator_matrix
from fvcore.nn.weight_init import c2_msra_fill
from torch import nn

from d2_isonet import delta_fill, orthogonal_penalty
from d2_isonet.isometry.penalty import minimum_orthogonal_penalty
from d2_isonet.layers.weight_init import (
    FILLS,
    delta_orthogonal_fill,
    fixup_fill,
    get_fill,
    phase_shifted_delta_fill,
)


def delta_conv(*args, **kwargs) -> nn.Conv2d:
    conv = nn.Conv2d(*args, **kwargs)
    delta_fill(conv)
    return conv


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("groups", [1, 2])
def test_delta_conv_is_identity(kernel_size, groups):
    conv = delta_conv(4, 4, kernel_size, padding=kernel_size // 2, groups=groups)
    x = torch.randn(2, 4, 6, 7)
    assert torch.equal(conv(x), x)


def test_a_dilated_delta_conv_is_identity():
    x = torch.randn(2, 4, 6, 7)
    assert torch.equal(delta_conv(4, 4, 3, padding=2, dilation=2)(x), x)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_more_outputs_than_inputs_leave_the_rest_zero(kernel_size):
    x = torch.randn(2, 3, 6, 6)
    y = delta_conv(3, 5, kernel_size, padding=kernel_size // 2)(x)
    assert torch.equal(y[:, :3], x)
    assert torch.equal(y[:, 3:], torch.zeros(2, 2, 6, 6))


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_fewer_outputs_than_inputs_drop_the_rest(kernel_size):
    x = torch.randn(2, 5, 6, 6)
    assert torch.equal(delta_conv(5, 3, kernel_size, padding=kernel_size // 2)(x), x[:, :3])


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_strided_delta_conv_samples(kernel_size):
    x = torch.randn(2, 4, 6, 6)
    y = delta_conv(4, 4, kernel_size, padding=kernel_size // 2, stride=2)(x)
    assert torch.equal(y, x[:, :, ::2, ::2])


def test_delta_fill_clears_the_bias():
    assert torch.equal(delta_conv(4, 4, 3).bias, torch.zeros(4))


def test_an_unknown_initializer_is_named_with_the_choices():
    with pytest.raises(ValueError, match="'dirac'.*delta.*msra"):
        get_fill("dirac")


def filled(fill, *args, **kwargs) -> nn.Conv2d:
    conv = nn.Conv2d(*args, **kwargs).double()
    fill(conv)
    return conv


def singular_values(conv: nn.Conv2d) -> torch.Tensor:
    matrix, _ = operator_matrix(conv.weight.detach(), conv.stride, conv.dilation, conv.groups)
    return torch.linalg.svdvals(matrix)


def excess(conv: nn.Conv2d) -> float:
    layer = (conv.stride, conv.dilation, conv.groups)
    minimum = minimum_orthogonal_penalty(conv.weight.shape, *layer)
    return orthogonal_penalty(conv.weight, *layer).item() - minimum


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel_size", "groups"),
    [(6, 6, 3, 1), (6, 6, 1, 1), (3, 7, 3, 1), (7, 3, 3, 1), (6, 6, 5, 2), (4, 4, 2, 1)],
)
def test_a_delta_orthogonal_convolution_has_all_singular_values_one(
    inputs, outputs, kernel_size, groups
):
    conv = filled(delta_orthogonal_fill, inputs, outputs, kernel_size, groups=groups)
    values = singular_values(conv)
    torch.testing.assert_close(values, torch.ones_like(values), rtol=1e-12, atol=0)


def test_a_delta_orthogonal_kernel_is_random_dense_and_at_the_centre_alone():
    first, second = (filled(delta_orthogonal_fill, 8, 8, 3) for _ in range(2))
    assert not torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, torch.zeros(8, dtype=torch.float64))
    assert bool((first.weight[:, :, 1, 1] != 0).all())
    first.weight.data[:, :, 1, 1] = 0
    assert torch.equal(first.weight, torch.zeros_like(first.weight))


@pytest.mark.parametrize("outputs", [5, 8, 11, 16])
def test_a_strided_phase_shifted_delta_has_all_singular_values_one(outputs):
    conv = filled(phase_shifted_delta_fill, 4, outputs, 3, stride=2, padding=1)
    values = singular_values(conv)
    assert torch.equal(values, torch.ones_like(values))
    assert excess(conv) == 0
    assert excess(filled(delta_fill, 4, outputs, 3, stride=2, padding=1)) == (outputs - 4) / 2


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((4, 20, 3), {"stride": 2}),  # more outputs than pixels: the rest stays zero
        ((4, 9, 3), {"stride": (1, 2)}),
        ((2, 18, 3), {"stride": 4}),  # fewer taps than phases
        ((2, 18, 5), {"stride": 4}),
        ((3, 7, 2), {"stride": 2}),
        ((4, 7, 3), {"stride": 2, "dilation": 2}),  # one phase covers all pixels that are read
        ((6, 12, 3), {"stride": 2, "groups": 3}),
        ((4, 8, 1), {"stride": 2}),
    ],
)
def test_a_phase_shifted_delta_attains_the_minimum_of_the_penalty(args, options):
    assert excess(filled(phase_shifted_delta_fill, *args, **options)) == 0


@pytest.mark.parametrize(
    ("args", "options"),
    [((4, 8, 3), {}), ((8, 4, 3), {"stride": 2}), ((4, 4, 3), {"stride": 2}), ((4, 8, 1), {})],
)
def test_without_a_stride_or_with_fewer_outputs_it_is_the_delta(args, options):
    shifted, delta = (filled(f, *args, **options) for f in (phase_shifted_delta_fill, delta_fill))
    assert torch.equal(shifted.weight, delta.weight)


def test_a_phase_shifted_delta_deals_out_the_pixels():
    conv = filled(phase_shifted_delta_fill, 1, 4, 3, stride=2, padding=1)
    x = torch.arange(16.0, dtype=torch.float64).view(1, 1, 4, 4)
    assert conv(x)[0, :, 1, 1].tolist() == [10.0, 9.0, 6.0, 5.0]


@pytest.mark.parametrize(("num_convs", "exponent"), [(2, -1 / 2), (3, -1 / 4)])
def test_fixup_scales_he_by_the_number_of_branches_and_ends_in_zeros(num_convs, exponent):
    convs = [nn.Conv2d(4, 4, 3) for _ in range(num_convs)]
    torch.manual_seed(3)
    fixup_fill(*convs, num_branches=16)
    torch.manual_seed(3)
    for conv in convs[:-1]:
        he = nn.Conv2d(4, 4, 3, device="meta").to_empty(device="cpu")
        c2_msra_fill(he)
        torch.testing.assert_close(conv.weight, he.weight * 16**exponent)
    assert torch.equal(convs[-1].weight, torch.zeros(4, 4, 3, 3))
    assert all(torch.equal(conv.bias, torch.zeros(4)) for conv in convs)


def test_fixup_leaves_a_convolution_outside_branches_to_he():
    conv = nn.Conv2d(64, 64, 3)
    fixup_fill(conv, num_branches=16)
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)


@pytest.mark.parametrize("name", FILLS)
def test_a_fill_by_name_fills_one_convolution_and_can_be_pickled(name):
    conv = nn.Conv2d(4, 4, 3)
    default = conv.weight.clone()
    pickle.loads(pickle.dumps(get_fill(name)))(conv)
    assert not torch.equal(conv.weight, default)
    assert torch.equal(conv.bias, torch.zeros(4))
