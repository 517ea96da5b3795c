"""DecoupledConv2d against the literal formulas, at its limits and at its edges."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d2_isonet.layers.decoupled_conv import ANGULARS, MAGNITUDES, DecoupledConv2d

OPERATORS = list(itertools.product(MAGNITUDES, ANGULARS))
GEOMETRIES = {
    "plain": {},
    "stride": {"stride": 2, "padding": 1},
    "dilation": {"dilation": 2, "padding": 2},
    "groups": {"groups": 2, "padding": 1},
    "all": {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2), "groups": 2},
}


def operator(*arguments, **options) -> DecoupledConv2d:
    conv = DecoupledConv2d(*arguments, **options).double()
    if hasattr(conv, "radius"):
        nn.init.uniform_(conv.radius, 0.6, 1.3)
    if isinstance(conv.sigmoid_k, nn.Parameter):
        nn.init.uniform_(conv.sigmoid_k, -0.5, 0.9)
    return conv


def literal_magnitude(conv: DecoupledConv2d, n: float, rho: float) -> float:
    alpha, beta = conv.options.alpha, conv.options.beta
    return {
        "Sphere": lambda: alpha,
        "Ball": lambda: alpha * min(n, rho) / rho,
        "Tanh": lambda: alpha * math.tanh(n / rho),
        "Linear": lambda: alpha * n,
        "Seg": lambda: alpha * n if n <= rho else beta * n + (alpha - beta) * rho,
        "Log": lambda: alpha * math.log(1 + n),
        "Mix": lambda: alpha * n + beta * math.log(1 + n),
    }[conv.options.magnitude]()


def literal_angular(conv: DecoupledConv2d, theta: float, k: float) -> float:
    def sigmoid():
        e = math.exp(-math.pi / (2 * k))
        shifted = math.exp(theta / k - math.pi / (2 * k))
        return (1 + e) / (1 - e) * (1 - shifted) / (1 + shifted)

    return {
        "cosine": lambda: math.cos(theta),
        "linear": lambda: 1 - 2 * theta / math.pi,
        "square_cosine": lambda: math.copysign(1, math.cos(theta)) * math.cos(theta) ** 2,
        "sigmoid": sigmoid,
    }[conv.options.angular]()


def patches_of(conv: DecoupledConv2d, x: torch.Tensor) -> torch.Tensor:
    """(groups, N, places, numbers of a patch)."""
    kwargs = {"dilation": conv.dilation, "padding": conv.padding, "stride": conv.stride}
    groups = x.chunk(conv.groups, dim=1)
    return torch.stack([F.unfold(x, conv.kernel_size, **kwargs).mT for x in groups])


def literal(conv: DecoupledConv2d, x: torch.Tensor) -> torch.Tensor:
    """One number at a time, (N, M, places)."""
    patches = patches_of(conv, x)
    norms = (patches.square().sum(-1) + 1e-4).sqrt()
    scale = 1.0 if conv.options.radius_scale == "none" else norms.mean().item()
    y = torch.zeros(x.shape[0], conv.out_channels, patches.shape[2], dtype=torch.float64)
    for i, m, place in itertools.product(*map(range, y.shape)):
        group = m // (conv.out_channels // conv.groups)
        patch, w, n = patches[group, i, place], conv.weight[m].flatten(), norms[group, i, place]
        theta = math.acos((patch @ w / ((w @ w + 1e-4).sqrt() * n)).item())
        rho = (conv.radius[m].item() ** 2 + 1e-4) * scale if hasattr(conv, "radius") else None
        learned = isinstance(conv.sigmoid_k, nn.Parameter)
        k = abs(conv.sigmoid_k[m].item()) + 0.05 if learned else conv.sigmoid_k
        y[i, m, place] = literal_magnitude(conv, n.item(), rho) * literal_angular(conv, theta, k)
    return y


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize(("magnitude", "angular"), OPERATORS)
def test_operator_is_its_formula_on_patches(magnitude, angular, geometry):
    options = {"magnitude": magnitude, "angular": angular, "alpha": 1.3, "beta": 0.4}
    conv = operator(4, 6, (3, 2), sigmoid_k_learned=True, **options, **geometry)
    x = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(conv(x).flatten(2), literal(conv, x), rtol=1e-9, atol=1e-9)


def test_fixed_sigmoid_is_the_papers():
    conv = operator(2, 3, 1, magnitude="Log", angular="sigmoid", sigmoid_k=0.3)
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(conv(x).flatten(2), literal(conv, x))


def test_radius_scale_none_holds_no_statistic():
    conv = operator(2, 3, 3, magnitude="Seg", radius_scale="none")
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(conv(x).flatten(2), literal(conv, x))
    torch.testing.assert_close(conv(x[:1]), conv(x)[:1])
    assert not list(conv.buffers())


@pytest.mark.parametrize(("magnitude", "angular"), OPERATORS)
def test_gradients_are_those_of_finite_differences(magnitude, angular):
    conv = operator(2, 2, 2, groups=2, magnitude=magnitude, angular=angular, sigmoid_k_learned=True)
    names, parameters = zip(*conv.named_parameters(), strict=True)
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def function(x, *values):
        return torch.func.functional_call(conv, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x, *parameters))


@pytest.mark.parametrize(("magnitude", "angular"), OPERATORS)
def test_every_parameter_has_a_gradient(magnitude, angular):
    conv = DecoupledConv2d(
        3, 8, 3, padding=1, magnitude=magnitude, angular=angular, sigmoid_k_learned=True
    )
    conv(torch.randn(2, 3, 8, 8)).square().sum().backward()
    expected = {"weight"} | ({"radius"} if magnitude in ("Ball", "Tanh", "Seg") else set())
    expected |= {"sigmoid_k"} if angular == "sigmoid" else set()
    assert {name for name, p in conv.named_parameters() if p.grad.abs().sum() > 0} == expected
    assert {name for name, _ in conv.named_parameters()} == expected


def aligned_patches(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches at theta = 0, at theta = pi, and of zeros; the filter."""
    w = torch.randn(1, 3, 3, 3) * scale
    return torch.cat([w, -w, torch.zeros_like(w)]), w


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(("magnitude", "angular"), OPERATORS)
def test_no_angle_and_no_empty_patch_makes_nan(magnitude, angular, scale):
    conv = DecoupledConv2d(3, 1, 3, magnitude=magnitude, angular=angular, sigmoid_k_learned=True)
    x, w = aligned_patches(scale)
    conv.weight.data.copy_(w)
    y = conv(x.requires_grad_())
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in [x, *conv.parameters()])
    assert y[0] > 0 > y[1] and y[2].abs() < 1e-6
    torch.testing.assert_close(y[0], -y[1])


@pytest.mark.parametrize("angular", ANGULARS)
def test_angular_function_runs_from_1_to_minus_1(angular):
    conv = DecoupledConv2d(3, 1, 3, magnitude="Sphere", angular=angular)
    x, w = aligned_patches(10.0)
    conv.weight.data.copy_(w)
    torch.testing.assert_close(conv(x).flatten(), torch.tensor([1.0, -1, 0]), rtol=0, atol=2e-3)


def pair(first: dict, second: dict) -> tuple[DecoupledConv2d, DecoupledConv2d]:
    common = {"radius_scale": "none", "padding": 1}
    a = DecoupledConv2d(3, 4, 3, **common, **first)
    b = DecoupledConv2d(3, 4, 3, **common, **second)
    b.weight = a.weight
    return a, b


@pytest.mark.parametrize("angular", ANGULARS)
def test_ball_of_a_large_radius_is_linear_over_the_radius(angular):
    ball, linear = pair(
        {"magnitude": "Ball", "angular": angular, "radius": 1e4},
        {"magnitude": "Linear", "angular": angular},
    )
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(ball(x) * 1e4, linear(x))


def test_ball_of_a_small_radius_is_sphere():
    ball, sphere = pair({"magnitude": "Ball", "radius": 1e-3}, {"magnitude": "Sphere"})
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(ball(x), sphere(x))


def test_tanh_is_bounded_by_alpha():
    conv = DecoupledConv2d(1, 1, 1, alpha=0.7, radius_scale="none")
    conv.weight.data.fill_(1)
    y = conv(torch.linspace(-100, 100, 1001).view(1, 1, 1, -1)).detach()
    assert y.abs().max() <= 0.7
    assert y.max().item() == pytest.approx(0.7, abs=1e-3)


def test_sphere_does_not_see_the_length_of_a_patch():
    conv = DecoupledConv2d(3, 4, 3, magnitude="Sphere")
    x = torch.randn(2, 3, 5, 5) * 10
    torch.testing.assert_close(conv(x), conv(7 * x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("angular", ANGULARS)
def test_the_length_of_a_filter_does_not_count(angular):
    conv = operator(3, 4, 3, angular=angular)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    conv.weight.data *= 100
    y = conv(x)
    conv.weight.data *= 10
    torch.testing.assert_close(conv(x), y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_patch_norm_is_that_of_a_convolution_of_all_channels(geometry):
    conv = operator(4, 6, 3, **geometry)
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    arguments = (conv.stride, conv.padding, conv.dilation, conv.groups)
    ones = torch.ones_like(conv.weight[: conv.groups])
    expected = (F.conv2d(x.square(), ones, None, *arguments) + 1e-4).sqrt()
    torch.testing.assert_close(conv._patch_norm(x, arguments), expected)


def test_the_patch_norm_costs_one_channel():
    shapes = []

    class Recorder(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.conv2d:
                shapes.append(tuple(args[1].shape))
            return function(*args, **(kwargs or {}))

    with Recorder():
        DecoupledConv2d(16, 32, 3)(torch.randn(1, 16, 8, 8))
    assert sorted(shapes) == [(1, 1, 3, 3), (32, 16, 3, 3)]
