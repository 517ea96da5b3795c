"""The orthogonal penalty against operators built as matrices, autograd and recorded numbers."""

import math

import pytest
import torch
import torch.nn.functional as F
from dense_operators import operator_matrix, pair

from d2_isonet.isometry.criterion import FORMS
from d2_isonet.isometry.penalty import (
    _without_subnormal_products,
    minimum_orthogonal_penalty,
    orthogonal_penalty,
    orthogonal_penalty_and_gradient,
)

# (M, C / groups, kh, kw), stride, dilation, groups
LAYERS = [
    ((4, 4, 3, 3), 1, 1, 1),
    ((6, 3, 3, 3), 1, 1, 1),
    ((3, 6, 3, 3), 1, 2, 1),
    ((8, 4, 3, 3), 2, 1, 1),
    ((3, 5, 3, 3), 2, 1, 1),
    ((20, 4, 3, 3), 2, 1, 1),
    ((6, 3, 3, 3), 2, 2, 1),
    ((5, 3, 3, 3), 2, 3, 1),
    ((4, 3, 3, 3), 3, 2, 1),
    ((4, 2, 5, 5), 3, 1, 1),
    ((3, 2, 5, 5), 2, 1, 1),
    ((6, 3, 1, 1), 1, 1, 1),
    ((3, 6, 1, 1), 1, 1, 1),
    ((7, 3, 1, 1), 2, 1, 1),
    ((3, 4, 2, 2), 1, 1, 1),
    ((9, 2, 2, 2), 2, 1, 1),
    ((5, 2, 2, 2), 3, 1, 1),
    ((6, 2, 3, 3), 1, 1, 2),
    ((8, 3, 3, 3), 2, 1, 2),
    ((8, 1, 3, 3), 1, 2, 4),
    ((4, 2, 1, 1), 3, 1, 4),
    ((5, 3, 3, 1), (1, 2), 1, 1),
    ((4, 3, 2, 5), (2, 3), (1, 2), 1),
    ((6, 2, 5, 3), (3, 1), (3, 1), 2),
    ((7, 1, 1, 3), (3, 2), 1, 1),
]
# The kernel sin(0), sin(1), sin(4), sin(9), ... times 0.3 in memory order, in float64, through
# the authors' ortho_conv: with X = W, or W with its first two dimensions exchanged where C < M,
# 1/2 sum (conv2d(X, X, stride=stride, padding=k - 1) - I at index size // 2)^2.
OFFICIAL = [
    ((8, 4, 3, 3), 1, 18.770728359590308),
    ((8, 4, 3, 3), 2, 13.033743352075497),
    ((4, 8, 3, 3), 1, 16.71137726465901),
    ((4, 8, 3, 3), 2, 11.924311311136746),
    ((5, 5, 3, 3), 2, 5.301697072145767),
    ((6, 4, 1, 1), 2, 1.1006380042456378),
    ((4, 6, 1, 1), 1, 1.230625627232599),
    ((4, 4, 2, 2), 2, 2.194101541806639),  # here and in the next two no lag is zero
    ((4, 6, 3, 3), 3, 2.4632165779355932),
    ((6, 4, 5, 5), 3, 7.584084476767538),
    ((5, 3, 3, 1), (2, 1), 0.3792925959906998),
    ((3, 4, 2, 5), (1, 2), 2.1464215299383462),
]
LAYERS_AND_FORMS = [(*layer, form) for layer in LAYERS for form in FORMS]


def sine_kernel(shape):
    values = torch.sin(torch.arange(math.prod(shape), dtype=torch.float64).square())
    return 0.3 * values.reshape(shape)


def one_tap_kernel(shape, stride, dilation, groups):
    """Distinct unit filters, one tap each among the first min(k, S') of every axis; then zeros."""
    steps = [s // math.gcd(s, d) for s, d in zip(pair(stride), pair(dilation), strict=True)]
    taps = [min(k, s) for k, s in zip(shape[2:], steps, strict=True)]
    weight = torch.zeros(shape, dtype=torch.float64)
    for m in range(shape[0]):
        tap, channel = divmod(m % (shape[0] // groups), shape[1])
        if tap < math.prod(taps):
            weight[m, channel, tap // taps[1], tap % taps[1]] = 1
    return weight


@pytest.mark.parametrize(("shape", "stride", "dilation", "groups"), LAYERS)
def test_exact_is_the_distance_of_the_operator_from_row_orthogonality(
    shape, stride, dilation, groups
):
    weight = sine_kernel(shape)
    matrix, positions = operator_matrix(weight, stride, dilation, groups)
    distance = (matrix @ matrix.T - torch.eye(len(matrix), dtype=weight.dtype)).square().sum()
    penalty = orthogonal_penalty(weight, stride, dilation, groups)
    torch.testing.assert_close(2 * positions * penalty, distance, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("shape", "stride", "dilation", "groups"), LAYERS)
def test_minimum_is_attained_with_singular_values_one(shape, stride, dilation, groups):
    weight = one_tap_kernel(shape, stride, dilation, groups)
    penalty = orthogonal_penalty(weight, stride, dilation, groups).item()
    assert penalty == minimum_orthogonal_penalty(shape, stride, dilation, groups)
    matrix, _ = operator_matrix(weight, stride, dilation, groups)
    gram = matrix @ matrix.T
    assert torch.equal(gram @ gram, gram)  # a projection: its eigenvalues are 0 and 1


@pytest.mark.parametrize(
    ("shape", "stride", "form"),
    [
        ((6, 3, 3, 3), 1, "exact"),
        ((3, 4, 3, 3), 2, "exact"),
        ((9, 2, 3, 3), 2, "exact"),
        ((4, 8, 3, 3), 2, "official"),
        ((4, 6, 2, 2), 2, "official"),
        ((4, 6, 3, 3), 3, "official"),
        ((40, 4, 3, 3), 1, "flattened"),
        ((6, 4, 3, 3), 1, "flattened"),
    ],
)
def test_minimum_is_where_a_descent_from_a_generic_kernel_ends(shape, stride, form):
    weight = sine_kernel(shape).requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        penalty = orthogonal_penalty(weight, stride, form=form)
        penalty.backward()
        return penalty

    optimizer.step(closure)
    expected = minimum_orthogonal_penalty(shape, stride, form=form)
    assert closure().item() == pytest.approx(expected, abs=1e-4)
    assert closure().item() >= expected - 1e-12


@pytest.mark.parametrize(("shape", "stride", "dilation", "groups", "form"), LAYERS_AND_FORMS)
def test_no_kernel_falls_below_the_minimum(shape, stride, dilation, groups, form):
    generator = torch.Generator().manual_seed(0)
    minimum = minimum_orthogonal_penalty(shape, stride, dilation, groups, form)
    for scale in (0.0, 0.03, 0.1, 0.3):
        weight = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        assert orthogonal_penalty(weight, stride, dilation, groups, form) >= minimum - 1e-12


@pytest.mark.parametrize(("shape", "stride", "dilation", "groups", "form"), LAYERS_AND_FORMS)
def test_closed_form_is_autograd(shape, stride, dilation, groups, form):
    weight = sine_kernel(shape).requires_grad_()
    penalty = orthogonal_penalty(weight, stride, dilation, groups, form)
    (expected,) = torch.autograd.grad(penalty, weight)
    value, gradient = orthogonal_penalty_and_gradient(weight, stride, dilation, groups, form)
    torch.testing.assert_close(value, penalty.detach(), rtol=1e-13, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    assert not value.requires_grad and not gradient.requires_grad


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("shape", "stride"), [((4, 2, 3, 3), 2), ((2, 3, 2, 3), (2, 1))])
def test_first_and_second_derivatives_are_right(shape, stride, form):
    weight = sine_kernel(shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: orthogonal_penalty(w, stride, form=form), weight)
    assert torch.autograd.gradgradcheck(lambda w: orthogonal_penalty(w, stride, form=form), weight)


@pytest.mark.parametrize(("shape", "stride", "expected"), OFFICIAL)
def test_official_is_the_authors_number(shape, stride, expected):
    penalty = orthogonal_penalty(sine_kernel(shape), stride, form="official")
    assert penalty.item() == pytest.approx(expected, rel=1e-12)


def test_official_with_groups_is_the_sum_over_the_groups():
    weight = sine_kernel((8, 2, 3, 3))
    parts = [orthogonal_penalty(part, 2, form="official") for part in weight.chunk(2)]
    torch.testing.assert_close(orthogonal_penalty(weight, 2, 1, 2, "official"), sum(parts))


@pytest.mark.parametrize(
    ("shape", "stride"), [((8, 4, 3, 3), 1), ((4, 8, 3, 3), 2), ((7, 3, 1, 1), 2)]
)
def test_official_differs_from_exact_by_the_minimum_alone(shape, stride):
    weight = sine_kernel(shape)
    difference = orthogonal_penalty(weight, stride) - orthogonal_penalty(
        weight, stride, form="official"
    )
    assert difference.item() == pytest.approx(max(0, shape[0] - shape[1]) / 2, rel=1e-12)


def test_official_is_content_with_a_rank_deficient_strided_expansion_and_exact_is_not():
    # The first 3x3 of stages 3, 4, 5 in R18 and R34: stride 2, M = 2 C.
    weight = torch.nn.init.dirac_(torch.empty(8, 4, 3, 3, dtype=torch.float64))
    assert orthogonal_penalty(weight, 2, form="official") == 0
    assert orthogonal_penalty(weight, 2) == (8 - 4) / 2
    assert minimum_orthogonal_penalty(weight.shape, 2) == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("shape", "stride"),
    [((4, 4, 3, 3), 1), ((4, 8, 3, 3), 2), ((8, 4, 1, 1), 2), ((4, 8, 1, 1), 1)],
)
def test_delta_kernel_has_no_excess(shape, stride, form):
    weight = torch.nn.init.dirac_(torch.empty(shape, dtype=torch.float64))
    value, gradient = orthogonal_penalty_and_gradient(weight, stride, form=form)
    assert value == minimum_orthogonal_penalty(shape, stride, form=form)
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("shape", [(40, 4, 3, 3), (5, 4, 3, 3)])
def test_flattened_is_equation_16(shape):
    rows = sine_kernel(shape).flatten(1)
    expected = (rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype)).square().sum() / 2
    penalty = orthogonal_penalty(sine_kernel(shape), 1, form="flattened")
    torch.testing.assert_close(penalty, expected, rtol=1e-12, atol=0)


def test_transposed_convolution_is_the_adjoint_with_the_same_weight():
    # ConvTranspose2d(M -> C) of the same weight has K^T for its matrix.
    weight = sine_kernel((8, 2, 3, 3))
    matrix, positions = operator_matrix(weight, 2, 1, 2)
    images = torch.eye(8 * 9, dtype=torch.float64).reshape(72, 8, 3, 3)
    full = F.conv_transpose2d(images, weight, stride=2, output_padding=1, groups=2)
    wrapped = full[:, :, :6, :6].clone()
    wrapped[:, :, :2] += full[:, :, 6:, :6]
    wrapped[..., :2] += full[:, :, :6, 6:]
    wrapped[:, :, :2, :2] += full[:, :, 6:, 6:]
    torch.testing.assert_close(wrapped.flatten(1), matrix)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_even_under_autocast(dtype):
    weight = sine_kernel((8, 4, 3, 3)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = orthogonal_penalty(weight)
        value, gradient = orthogonal_penalty_and_gradient(weight)
    expected, expected_gradient = orthogonal_penalty_and_gradient(weight.double())
    assert penalty.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(penalty.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-5)


def test_small_excess_survives_beside_a_large_minimum():
    weight = torch.zeros(4096, 4, 1, 1)
    weight[:4, :, 0, 0] = torch.eye(4) * (1 + 1e-4)
    value, _ = orthogonal_penalty_and_gradient(weight)
    excess = value.item() - minimum_orthogonal_penalty(weight.shape)
    assert excess == pytest.approx(4 * (2e-4 + 1e-8) ** 2 / 2, rel=1e-2)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4, 4, 3, 3), {"form": "frobenius"}, "frobenius.*exact.*official.*flattened"),
        ((4, 4, 3), {}, r"4-dimensional; got \(4, 4, 3\)"),
        ((4, 4, 3, 3), {"groups": 3}, "4 output channels .* 3 groups"),
        ((4, 4, 3, 3), {"stride": (1, 0)}, r"positive; got \(1, 0\)"),
    ],
)
@pytest.mark.parametrize("function", [orthogonal_penalty, orthogonal_penalty_and_gradient])
def test_wrong_arguments_are_named(shape, options, message, function):
    with pytest.raises(ValueError, match=message):
        function(torch.zeros(shape), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_near_a_delta_no_subnormal_number_is_computed(dtype):
    # They made the hook's step a hundred times slower on a CPU, in the first minutes of training.
    numbers = torch.finfo(dtype)
    weight = torch.cat([10.0 ** -torch.arange(0, 40, 0.1, dtype=torch.float64)] * 2).to(dtype)
    kept = _without_subnormal_products(weight)
    products = torch.outer(kept, kept).abs()
    differences = (products[:, :400, None] - products[:, None, :400:7]).abs()
    for result in (products, differences):
        assert not ((result > 0) & (result < numbers.tiny)).any()
    assert torch.equal(kept[weight > 4e-16], weight[weight > 4e-16])
