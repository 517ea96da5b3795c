"""Delta initialization."""

import pytest
import torch
from torch import nn

from d2_isonet import delta_fill
from d2_isonet.weight_init import get_fill


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
