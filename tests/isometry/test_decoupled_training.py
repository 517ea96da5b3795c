"""Projection of decoupled filters, and the penalty on their angles in a training."""

import copy

import pytest
import torch
from detectron2.engine import SimpleTrainer
from torch import nn

from d2_isonet.isometry.decoupled_filters import (
    FilterOrthogonalRegularizer,
    WeightProjection,
    decoupled_convolutions,
    filter_orthogonal_penalty,
    filter_orthogonal_penalty_and_gradient,
    project_filters,
)
from d2_isonet.layers.decoupled_conv import DecoupledConv2d

SHAPES = {
    "more numbers than filters": ((5, 2, 3, 3), 1),
    "more filters": ((12, 3, 1, 1), 1),
    "groups": ((6, 2, 3, 2), 3),
}


class ToyNetwork(nn.Module):
    """One ordinary and two decoupled convolutions; the loss is a mean over the images."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = DecoupledConv2d(4, 6, 3, radius_scale="none")
        self.third = DecoupledConv2d(6, 4, 1, groups=2, radius_scale="none")
        self.double()

    def forward(self, images):
        return {"loss_toy": self.third(self.second(self.first(images))).square().mean()}


def train(model, hooks, steps=4, lr=0.5):
    images = torch.randn(steps, 2, 3, 6, 6, dtype=torch.float64).unbind()
    trainer = SimpleTrainer(model, images, torch.optim.SGD(model.parameters(), lr, momentum=0.9))
    trainer.register_hooks(hooks)
    trainer.train(0, steps)
    return trainer


@pytest.mark.parametrize(("shape", "groups"), SHAPES.values(), ids=SHAPES)
def test_penalty_is_its_formula(shape, groups):
    weight = torch.randn(shape, dtype=torch.float64)
    expected = 0.0
    for group in weight.chunk(groups):
        rows = group.flatten(1)
        rows = rows / (rows.square().sum(1, keepdim=True) + 1e-4).sqrt()
        identity = torch.eye(len(rows), dtype=torch.float64)
        expected += torch.linalg.matrix_norm(rows @ rows.T - identity) ** 2 / 2
    torch.testing.assert_close(filter_orthogonal_penalty(weight, groups), expected)


@pytest.mark.parametrize(("shape", "groups"), SHAPES.values(), ids=SHAPES)
def test_closed_form_gradient_is_autograds(shape, groups):
    weight = (0.1 * torch.randn(shape, dtype=torch.float64)).requires_grad_()
    value, gradient = filter_orthogonal_penalty_and_gradient(weight, groups)
    penalty = filter_orthogonal_penalty(weight, groups)
    torch.testing.assert_close(value, penalty.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(penalty, weight)[0])


def test_orthonormal_filters_have_no_penalty():
    weight = nn.init.orthogonal_(torch.empty(4, 18)).view(4, 2, 3, 3) * 50
    assert filter_orthogonal_penalty(weight).item() == pytest.approx(0, abs=1e-6)


def test_the_step_is_one_on_loss_plus_penalty():
    model, coeff = ToyNetwork(), 0.03
    expected = copy.deepcopy(model)
    optimizer = torch.optim.SGD(expected.parameters(), 0.5, momentum=0.9)
    torch.manual_seed(1)
    images = torch.randn(4, 2, 3, 6, 6, dtype=torch.float64)
    for batch in images:
        penalty = sum(
            filter_orthogonal_penalty(conv.weight, conv.groups)
            for conv in (expected.second, expected.third)
        )
        optimizer.zero_grad()
        (expected(batch)["loss_toy"] + coeff * penalty).backward()
        optimizer.step()
    torch.manual_seed(1)
    trainer = train(model, [FilterOrthogonalRegularizer(coeff)])
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert trainer.storage.latest()["loss_filter_ortho"][0] == pytest.approx(penalty.item())


def test_a_frozen_layer_gets_no_penalty():
    model = ToyNetwork()
    model.second.requires_grad_(False)
    before = model.second.weight.clone()
    train(model, [FilterOrthogonalRegularizer(0.1), WeightProjection(1)])
    assert torch.equal(model.second.weight, before)


def test_projection_makes_unit_filters_and_leaves_the_function():
    model = ToyNetwork()
    model.second.weight.data *= 7
    bias = model.first.weight.clone()
    images = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    before = model.third(model.second(model.first(images)))
    project_filters(model)
    lengths = model.second.weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=1e-4, atol=0)
    after = model.third(model.second(model.first(images)))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    assert torch.equal(model.first.weight, bias)


def test_projection_undoes_the_fading_of_the_gradient():
    model = ToyNetwork()
    model.second.weight.data *= 100
    images = torch.randn(2, 3, 6, 6, dtype=torch.float64)

    def gradient():
        return torch.autograd.grad(model(images)["loss_toy"], model.second.weight)[0].norm()

    lengths = model.second.weight.flatten(1).norm(dim=1)
    faded = gradient()
    project_filters(model)
    assert lengths.min() * 0.9 < gradient() / faded < lengths.max() * 1.1


class LengthRecorder(WeightProjection):
    def __init__(self):
        super().__init__(10**6)
        self.unit = []

    def after_step(self):
        lengths = self.trainer.model.second.weight.flatten(1).norm(dim=1)
        self.unit.append(bool((lengths - 1).abs().max() < 1e-3))


def test_projection_happens_every_period_iterations():
    recorder = LengthRecorder()
    model = ToyNetwork()
    model.second.weight.data *= 3
    train(model, [WeightProjection(3), recorder], steps=7, lr=5.0)
    assert recorder.unit == [False, False, True, False, False, True, False]


def test_decoupled_convolutions_are_found_by_name():
    assert list(decoupled_convolutions(ToyNetwork())) == ["second", "third"]


@pytest.mark.parametrize("hook", [WeightProjection(5), FilterOrthogonalRegularizer(1e-5)])
def test_a_model_without_decoupled_filters_is_refused(hook):
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    with pytest.raises(ValueError, match="no decoupled convolution.*MODEL.ISONET.CONV"):
        train(model, [hook])


@pytest.mark.parametrize("period", [0, -1, 2.5])
def test_an_impossible_period_is_refused(period):
    with pytest.raises(ValueError, match=f"WEIGHT_PROJECTION_PERIOD is {period}"):
        WeightProjection(period)


def test_diverged_filters_stop_the_training():
    model = ToyNetwork()
    hook = FilterOrthogonalRegularizer(1e-5)

    class Poison(SimpleTrainer):
        def run_step(self):
            model.second.weight.data.fill_(float("nan"))
            self.optimizer.step()

    trainer = Poison(model, [], torch.optim.SGD(model.parameters(), 0.1))
    trainer.register_hooks([hook])
    with pytest.raises(FloatingPointError, match="penalty of second became nan at iteration 0"):
        trainer.train(0, 1)
