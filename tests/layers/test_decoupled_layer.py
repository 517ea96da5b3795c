"""DecoupledConv2d as a layer: precision, the statistic of the radius, state, bad options."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import get_norm
from torch import nn

from d2_isonet.layers.decoupled_conv import DecoupledConv2d


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    conv = DecoupledConv2d(3, 4, 3, radius_scale="none")
    x = torch.full((1, 3, 4, 4), 300.0)  # 300 squared is infinite in float16
    half = DecoupledConv2d(3, 4, 3, radius_scale="none").to(dtype)
    half.load_state_dict(conv.state_dict())
    assert half(x.to(dtype)).dtype == dtype
    torch.testing.assert_close(half(x.to(dtype)).float(), conv(x), rtol=0.02, atol=0.02)


def test_autocast_computes_in_float32_and_returns_its_own_type():
    conv = DecoupledConv2d(3, 4, 3, angular="sigmoid", magnitude="Ball")
    x = torch.randn(2, 3, 6, 6)
    expected = conv(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
        assert y.dtype == nn.Conv2d(3, 4, 3)(x).dtype == torch.bfloat16
    torch.testing.assert_close(y, expected.bfloat16())
    y.float().sum().backward()
    assert conv.weight.grad.dtype == torch.float32 and conv.weight.grad.isfinite().all()


def patch_norms(x: torch.Tensor) -> torch.Tensor:
    """Norms of the 3x3 patches of (N, C, 5, 5), without padding: (N, 1, 3, 3)."""
    return (F.unfold(x, 3).square().sum(1) + 1e-4).sqrt().view(-1, 1, 3, 3)


def test_the_moving_average_is_exact_in_float64():
    conv = DecoupledConv2d(3, 4, 3, radius_scale="running").double()
    images = torch.rand(5, 2, 3, 5, 5, dtype=torch.float64)
    for batch in images:
        conv(batch)
    weights = [0.999 ** (4 - i) for i in range(5)]
    means = [patch_norms(batch).mean().item() for batch in images]
    expected = sum(w * m for w, m in zip(weights, means, strict=True)) / sum(weights)
    assert conv.running_norm.item() == pytest.approx(expected, rel=1e-13)


def test_evaluation_uses_the_moving_average_of_training():
    conv = DecoupledConv2d(3, 4, 3)
    first, second = torch.randn(2, 3, 5, 5), 3 * torch.randn(2, 3, 5, 5)
    conv(first)
    torch.testing.assert_close(conv.running_norm, patch_norms(first).mean())
    conv(second)
    # the bias-corrected average of two batches weights them 0.999 to 1
    a, b = patch_norms(first).mean(), patch_norms(second).mean()
    torch.testing.assert_close(conv.running_norm, (0.999 * a + b) / 1.999)
    rho = (1 + 1e-4) * conv.running_norm
    linear = F.conv2d(
        first, conv.weight / (conv.weight.square().sum((1, 2, 3), True) + 1e-4).sqrt()
    )
    n = patch_norms(first)
    torch.testing.assert_close(conv.eval()(first), linear / n * torch.tanh(n / rho))


def test_the_average_forgets_at_the_released_rate():
    conv = DecoupledConv2d(1, 1, 1)
    x = torch.ones(1, 1, 1, 1)
    conv.num_batches_tracked.fill_(10**6)
    conv.running_norm.fill_(2.0)
    conv(3 * x)
    assert conv.running_norm.item() == pytest.approx(2 + 0.001 * (3 - 2), abs=1e-4)


def test_running_scale_is_used_in_training_and_has_no_gradient():
    conv = DecoupledConv2d(3, 4, 3, radius_scale="running")
    frozen = DecoupledConv2d(3, 4, 3, radius_scale="frozen")
    x = torch.randn(2, 3, 5, 5, requires_grad=True)
    first, again = conv(x), conv(2 * x)  # twice, like a head that several levels share
    frozen.load_state_dict(conv.state_dict())
    torch.testing.assert_close(frozen(2 * x), again)
    gradients = torch.autograd.grad((first + again).sum(), (x, conv.radius))
    frozen.running_norm.copy_(patch_norms(x.detach()).mean())
    torch.testing.assert_close(frozen(x), first)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_frozen_scale_stays():
    conv = DecoupledConv2d(3, 4, 3, radius_scale="frozen")
    conv.running_norm.fill_(2.5)
    trained = conv(torch.randn(2, 3, 5, 5))
    assert conv.running_norm == 2.5 and conv.num_batches_tracked == 0 and conv.training
    assert trained.isfinite().all()


def test_a_layer_that_is_frozen_keeps_its_average():
    conv = DecoupledConv2d(3, 4, 3).requires_grad_(False)
    x = torch.randn(2, 3, 5, 5)
    y = conv(x)
    assert conv.running_norm == 1
    torch.testing.assert_close(conv.eval()(x), y)


def test_batch_scale_passes_a_gradient():
    batch = DecoupledConv2d(1, 1, 1, radius_scale="batch")
    fixed = DecoupledConv2d(1, 1, 1, radius_scale="none")
    x = torch.ones(1, 1, 1, 1, requires_grad=True)
    for conv in (batch, fixed):
        conv.weight.data.fill_(1)
    # the only patch divided by its own length does not change with it
    assert torch.autograd.grad(batch(x), x)[0].item() == pytest.approx(0, abs=1e-3)
    assert torch.autograd.grad(fixed(x), x)[0].item() > 0.1


@pytest.mark.parametrize("scale", ["batch", "running", "frozen"])
def test_state_dicts_load_between_scales(scale):
    source = DecoupledConv2d(3, 4, 3)
    source(torch.randn(1, 3, 5, 5))
    target = DecoupledConv2d(3, 4, 3, radius_scale=scale, radius_learned=False)
    target.load_state_dict(source.state_dict())
    x = torch.randn(1, 3, 5, 5)
    torch.testing.assert_close(target.eval()(x), source.eval()(x))


def test_no_proposals_leave_the_average_alone():
    conv = DecoupledConv2d(4, 4, 3, groups=2, padding=1, angular="linear")
    y = conv(torch.zeros(0, 4, 7, 7, requires_grad=True))
    y.sum().backward()
    assert y.shape == (0, 4, 7, 7) and conv.running_norm == 1 and conv.num_batches_tracked == 0


def test_radius_is_its_square_plus_eps():
    conv = DecoupledConv2d(3, 4, 3, radius=2.0, radius_learned=False, radius_scale="none")
    assert not conv.radius.requires_grad
    n = torch.ones(1, 1, 1, 1)
    torch.testing.assert_close(conv._operator_radius(n), torch.full((4, 1, 1), 2.0001))


@pytest.mark.parametrize("angular", ["cosine", "sigmoid"])
def test_one_image_may_come_without_a_batch_as_to_conv2d(angular):
    conv = DecoupledConv2d(4, 6, 3, groups=2, angular=angular, sigmoid_k_learned=True).eval()
    x = torch.randn(4, 5, 5)
    torch.testing.assert_close(conv(x), conv(x[None])[0])


def test_norm_and_activation_follow():
    conv = DecoupledConv2d(3, 4, 3, norm=get_norm("BN", 4), activation=F.relu)
    bare = DecoupledConv2d(3, 4, 3)
    bare.weight = conv.weight
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(conv(x), F.relu(nn.BatchNorm2d(4)(bare(x))))


def test_it_traces():
    conv = DecoupledConv2d(3, 4, 3, angular="sigmoid").eval()
    x = torch.randn(2, 3, 6, 6)
    traced = torch.jit.trace(conv, torch.randn(1, 3, 8, 8))
    exported = torch.export.export(conv, (x,)).module()
    torch.testing.assert_close(traced(x), conv(x))
    torch.testing.assert_close(exported(x), conv(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"magnitude": "Cube"}, "MODEL.DECOUPLED.MAGNITUDE is 'Cube'.*'Ball'"),
        ({"angular": "sine"}, "MODEL.DECOUPLED.ANGULAR is 'sine'.*'square_cosine'"),
        ({"radius_scale": "mean"}, "MODEL.DECOUPLED.RADIUS_SCALE is 'mean'.*'frozen'"),
        ({"radius": 0.0}, "MODEL.DECOUPLED.RADIUS is 0.0.*above 0"),
        ({"sigmoid_k": -0.3}, "MODEL.DECOUPLED.SIGMOID_K is -0.3"),
        ({"alpha": float("nan")}, "MODEL.DECOUPLED.ALPHA is nan"),
        ({"beta": -1.0}, "MODEL.DECOUPLED.BETA is -1.0"),
        ({"bias": True}, "no bias"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DecoupledConv2d(3, 4, 3, **options)
