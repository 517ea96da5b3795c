"""SReLU, residual scale, scalar bias and the factories."""

import functools
import math

import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn

from d2_isonet import SReLU
from d2_isonet.layers.activation import ACTIVATIONS, get_activation, register_activation
from d2_isonet.layers.convolution import (
    ScalarBias,
    get_conv,
    needs_bias,
    residual_scale_parameter,
    scaled_convolution,
)


def formula(x, shift):
    """The authors' expression of eq. 15."""
    shift = shift.view(1, -1, 1, 1)
    return torch.relu(x - shift) + shift


def gradients(function, x, shift, grad):
    x, shift = x.clone().requires_grad_(), shift.clone().requires_grad_()
    y = function(x, shift)
    y.backward(grad)
    return y.detach(), x.grad, shift.grad


def srelu(x, shift):
    module = SReLU(len(shift)).to(x.dtype)
    del module.shift
    module.shift = shift
    return module(x)


def test_srelu_is_the_maximum_of_input_and_shift():
    x = torch.tensor([-3.0, -1.0, -0.5, 2.0]).view(1, 1, 2, 2)
    expected = torch.tensor([-1.0, -1.0, -0.5, 2.0]).view(1, 1, 2, 2)
    assert torch.equal(SReLU(1)(x), expected)


def test_srelu_and_its_gradients_are_those_of_the_formula():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    shift = torch.tensor([-1.0, 0.0, 0.3], dtype=torch.float64)
    x[0, 0, 0, 0], x[1, 2, 3, 4] = -1.0, 0.3  # ties, which are frequent after delta initialization
    grad = torch.randn_like(x)
    for ours, theirs in zip(
        gradients(srelu, x, shift, grad), gradients(formula, x, shift, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_tie_sends_its_gradient_to_the_shift_alone():
    x = torch.full((1, 1, 1, 2), -1.0)
    _, grad_x, grad_shift = gradients(srelu, x, torch.tensor([-1.0]), torch.ones_like(x))
    assert torch.equal(grad_x, torch.zeros_like(x))
    assert torch.equal(grad_shift, torch.tensor([2.0]))


def test_srelu_passes_gradcheck_away_from_ties():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([-1.0, 0.1, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(srelu, (x, shift))


def test_a_frozen_shift_gets_no_gradient_and_the_input_does():
    module = SReLU(3, learnable=False)
    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    module(x).sum().backward()
    assert module.shift.grad is None
    assert torch.equal(x.grad, (x > -1).float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_srelu_stays_in_half_precision_under_amp(dtype):
    module, x = SReLU(3), torch.randn(2, 3, 4, 4).to(dtype).requires_grad_()
    y = module(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    assert module.shift.grad.dtype == torch.float32
    assert torch.equal(module.shift.grad, (x <= -1).float().sum((0, 2, 3)))


def test_srelu_keeps_channels_last_and_takes_empty_input():
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert SReLU(3)(x).is_contiguous(memory_format=torch.channels_last)
    empty = torch.zeros(0, 3, 7, 7, requires_grad=True)
    module = SReLU(3)
    module(empty).sum().backward()
    assert torch.equal(module.shift.grad, torch.zeros(3))


def test_srelu_keeps_no_activation_but_its_output():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = SReLU(3)(torch.randn(2, 3, 8, 8, requires_grad=True))
    large = [t for t in saved if t.numel() > 3]
    assert [t.data_ptr() for t in large] == [y.data_ptr()]


def test_in_place_it_writes_over_its_input_and_has_the_same_gradients():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    x[0, 0, 0, 0] = -1
    grad = torch.randn_like(x)
    expected = SReLU(3).double()
    leaf = x.clone().requires_grad_()
    expected(leaf).backward(grad)
    module = SReLU(3, inplace=True).double()
    other = x.clone().requires_grad_()
    copy = other * 1
    y = module(copy)
    y.backward(grad)
    assert y.data_ptr() == copy.data_ptr()
    assert torch.equal(other.grad, leaf.grad)
    assert torch.equal(module.shift.grad, expected.shift.grad)
    with torch.no_grad():
        copy = x.clone()
        assert module(copy).data_ptr() == copy.data_ptr()
        assert torch.equal(copy, expected(x))


@pytest.mark.parametrize("layout", ["channels_last", "slice", "expanded"])
def test_srelu_takes_any_memory_layout_of_input_and_gradient(layout):
    x, grad = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    shift = torch.tensor([-1.0, 0.0, 0.3], dtype=torch.float64)
    if layout == "expanded":
        grad = grad[:1, :, :1, :1].expand_as(x)
    expected = gradients(formula, x, shift, grad)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "slice":
        x = torch.stack([x, x], -1)[..., 0]
        grad = torch.stack([grad, grad], -1)[..., 1]
    for ours, theirs in zip(gradients(srelu, x, shift, grad), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_what_a_compiler_sees_is_the_same_function(monkeypatch):
    x, grad = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    shift = torch.tensor([-1.0, 0.0, 0.3], dtype=torch.float64)
    x[0, 0, 0, 0] = -1
    expected = gradients(srelu, x, shift, grad)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for ours, theirs in zip(gradients(srelu, x, shift, grad), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", ["trained", "evaluated", "compiled", "scripted"])
def test_what_has_diverged_stays_visible_behind_srelu(how, monkeypatch):
    module = SReLU(1)
    if how == "scripted":
        module = torch.jit.script(module)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: how == "compiled")
    x = torch.tensor([float("nan"), -2.0, math.inf, 3.0]).view(1, 1, 2, 2)
    with torch.set_grad_enabled(how != "evaluated"):
        y = module(x.clone().requires_grad_() * 1)
    assert str(y.flatten().tolist()) == "[nan, -1.0, inf, 3.0]"


def test_a_nan_s_gradient_is_the_input_s_compiled_or_not(monkeypatch):
    x, grad = torch.full((1, 1, 1, 1), float("nan")), torch.ones(1, 1, 1, 1)
    for compiled in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiled=compiled: compiled)
        grad_x, grad_shift = gradients(srelu, x, torch.tensor([-1.0]), grad)[-2:]
        assert (grad_x.item(), grad_shift.item()) == (1, 0)


def test_srelu_scripts():
    module = torch.jit.script(SReLU(3))
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(module(x), SReLU(3)(x))


def test_the_shift_is_not_called_bias():
    assert [name for name, _ in SReLU(4).named_parameters()] == ["shift"]


def test_an_unknown_activation_is_named_with_the_choices():
    with pytest.raises(ValueError, match="'SRELU'.*ReLU.*SReLU"):
        get_activation("SRELU", 3)


def test_an_activation_can_be_a_callable():
    assert isinstance(get_activation(lambda channels: torch.nn.PReLU(channels), 3), torch.nn.PReLU)


def test_a_residual_scale_is_one_number_a_block_or_one_a_channel():
    assert residual_scale_parameter(0.0, "block", 8).tolist() == [0.0]
    assert residual_scale_parameter(0.5, "channel", 3).tolist() == [0.5] * 3
    assert residual_scale_parameter(None, "block", 8) is None


@pytest.mark.parametrize("scale", [0.0, 0.3, "channel"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_scaled_convolution_is_the_scale_times_the_convolution(scale, bias):
    conv = Conv2d(3, 4, 3, padding=2, dilation=2, stride=2, bias=bias).double()
    shape, init = ("channel", 0.5) if scale == "channel" else ("block", scale)
    factor = residual_scale_parameter(init, shape, 4).double().detach().requires_grad_()
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64, requires_grad=True)
    inputs = (x, factor, *conv.parameters())
    y, expected = scaled_convolution(conv, x, factor), conv(x) * factor.view(-1, 1, 1)
    torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)
    grad = torch.randn_like(y)
    for ours, theirs in zip(
        torch.autograd.grad(y, inputs, grad),
        torch.autograd.grad(expected, inputs, grad),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_scaled_convolution_keeps_nothing_but_its_input_and_parameters():
    conv, scale = Conv2d(3, 4, 3, bias=False), nn.Parameter(torch.ones(1))
    x, saved = torch.randn(2, 3, 8, 8, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        scaled_convolution(conv, x, scale)
    kept = {tensor.data_ptr() for tensor in saved}
    assert kept == {tensor.data_ptr() for tensor in (x, conv.weight, scale)}


def test_a_scaled_convolution_runs_in_half_precision_under_autocast():
    conv, scale = Conv2d(3, 4, 3, bias=False), nn.Parameter(torch.tensor([0.5]))
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = scaled_convolution(conv, x, scale)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert conv.weight.grad.dtype == scale.grad.dtype == torch.float32
    expected = nn.Parameter(torch.tensor([0.5]))
    (conv(x) * expected).square().sum().backward()
    torch.testing.assert_close(scale.grad, expected.grad, rtol=0.05, atol=0)


def test_an_unknown_residual_scale_shape_is_named_with_the_choices():
    with pytest.raises(ValueError, match="'layer'.*block.*channel"):
        residual_scale_parameter(0.0, "layer", 8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ReLU", [0.0, 0.0, 1.0]),
        ("SReLU", [-1.0, -0.5, 1.0]),
        ("LeakyReLU", [-0.02, -0.005, 1.0]),
        ("PReLU", [-0.5, -0.125, 1.0]),
        ("RReLU", [-2 * 11 / 48, -0.5 * 11 / 48, 1.0]),
        ("ELU", [math.expm1(-2), math.expm1(-0.5), 1.0]),
        ("SELU", [1.758099341 * math.expm1(-2), 1.758099341 * math.expm1(-0.5), 1.050700987]),
        ("Swish", [-2 / (1 + math.e**2), -0.5 / (1 + math.e**0.5), 1 / (1 + math.e**-1)]),
        ("Identity", [-2.0, -0.5, 1.0]),
    ],
)
def test_an_activation_is_its_formula(name, expected):
    x = torch.tensor([-2.0, -0.5, 1.0]).view(1, 1, 1, 3)
    y = get_activation(name, 1).eval()(x)
    torch.testing.assert_close(y.flatten(), torch.tensor(expected))


def test_every_activation_has_a_test_of_its_formula():
    marker = test_an_activation_is_its_formula.pytestmark[0]
    assert sorted(name for name, _ in marker.args[1]) == sorted(ACTIVATIONS)


def test_an_activation_of_another_project_is_known_by_its_name(monkeypatch):
    monkeypatch.setattr("d2_isonet.layers.activation.ACTIVATIONS", dict(ACTIVATIONS))
    register_activation("PReLUOfMine", torch.nn.PReLU)
    assert get_activation("PReLUOfMine", 5).weight.shape == (5,)
    with pytest.raises(ValueError, match="there is an activation 'PReLUOfMine' already"):
        register_activation("PReLUOfMine", torch.nn.PReLU)


def test_prelu_has_a_slope_per_channel():
    assert get_activation("PReLU", 5).weight.shape == (5,)


def test_a_near_miss_is_told():
    with pytest.raises(ValueError, match="did you mean Swish"):
        get_activation("swish", 3)


def test_a_scalar_bias_adds_one_number_and_has_a_name_of_its_own():
    module = ScalarBias()
    assert [name for name, _ in module.named_parameters()] == ["scalar_bias"]
    nn.init.constant_(module.scalar_bias, 0.5)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(module(x), x + 0.5)
    assert module(x.bfloat16()).dtype == torch.bfloat16


def test_a_convolution_is_detectron2s_or_any_callable():
    assert get_conv("Conv2d") is Conv2d
    assert get_conv(nn.Conv2d) is nn.Conv2d
    with pytest.raises(ValueError, match="'Conv3d'.*Conv2d"):
        get_conv("Conv3d")


@pytest.mark.parametrize(
    ("norm", "activation", "conv", "expected"),
    [
        ("", "ReLU", "Conv2d", True),
        ("", "PReLU", Conv2d, True),
        ("", functools.partial(SReLU, init=-2.0), "Conv2d", False),
        ("", functools.partial(nn.PReLU, init=0.0), "Conv2d", True),
        ("GN", "Identity", "Conv2d", False),
        ("", "ReLU", functools.partial(Conv2d), False),
    ],
)
def test_a_bias_stands_only_where_nothing_else_shifts(norm, activation, conv, expected):
    assert needs_bias(norm, activation, conv) == expected
