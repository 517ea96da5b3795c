"""What the regularizer's hook takes, logs and refuses."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from torch import nn
from toy_training import (
    COEFF,
    SGD,
    PenaltyToyModel,
    assert_equal,
    batches,
    reference,
    train,
    trained,
)

from d2_isonet.isometry.penalty import minimum_orthogonal_penalty, orthogonal_penalty
from d2_isonet.isometry.regularizer import OrthogonalRegularizer
from d2_isonet.modeling.stages import default_convolutions, stage_of


def test_excess_is_logged_once_a_step_and_by_stage():
    model = PenaltyToyModel()
    excess = dict.fromkeys(["res2", "res3"], 0.0)
    for name, conv in default_convolutions(model).items():
        layer = (conv.stride, conv.dilation, conv.groups)
        least = minimum_orthogonal_penalty(conv.weight.shape, *layer)
        excess[stage_of(name)] += orthogonal_penalty(conv.weight, *layer).item() - least
    trainer = train(model, SGD(trained(model)), [OrthogonalRegularizer(COEFF)])
    history = {name: h.values() for name, h in trainer.storage.histories().items()}
    assert [iteration for _, iteration in history["loss_ortho"]] == [0, 1]
    assert history["loss_ortho"][0][0] == pytest.approx(sum(excess.values()), rel=1e-12)
    assert history["ortho/res2"][0][0] == pytest.approx(excess["res2"], rel=1e-12)
    assert history["ortho/res3"][0][0] == pytest.approx(excess["res3"], rel=1e-12)
    assert {name for name in history if "ortho" in name and "loss" in name} == {"loss_ortho"}


def test_coefficient_zero_only_logs():
    model, unused = PenaltyToyModel(), nn.Conv2d(4, 4, 3).double()
    expected = reference(model, SGD, coeff=0.0)
    convs = {**default_convolutions(model), "unused": unused}
    trainer = train(model, SGD(trained(model)), [OrthogonalRegularizer(0, convs=convs)])
    assert_equal(model, expected)
    assert unused.weight.grad is None  # a gradient of zeros would let weight decay at it
    assert trainer.storage.latest()["ortho/unused"][0] > 0


def test_weight_that_the_loss_does_not_use_gets_the_penalty_alone():
    # .grad is None there; and a weight shared by two convolutions is taken once.
    model, conv = PenaltyToyModel(), nn.Conv2d(4, 4, 3).double()
    twin = nn.Conv2d(4, 4, 3)
    twin.weight = conv.weight
    (gradient,) = torch.autograd.grad(COEFF * orthogonal_penalty(conv.weight), conv.weight)
    optimizer = SGD([*trained(model), conv.weight])
    hook = OrthogonalRegularizer(COEFF, convs=[("a.0", conv), ("b.0", twin)])
    train(model, optimizer, [hook], data=batches()[:1])
    torch.testing.assert_close(conv.weight.grad, gradient, rtol=1e-12, atol=1e-14)


def test_transposed_convolution_can_be_given():
    model, conv = PenaltyToyModel(), nn.ConvTranspose2d(4, 2, 3, stride=2).double()
    expected = orthogonal_penalty(conv.weight, 2).item()
    trainer = train(model, SGD(trained(model)), [OrthogonalRegularizer(0, convs={"up": conv})])
    assert trainer.storage.history("ortho/up").values()[0][0] == pytest.approx(expected)


def test_infinite_penalty_is_an_error_naming_the_layer():
    conv = nn.Conv2d(4, 4, 3).double()
    nn.init.constant_(conv.weight, 1e200)
    model = PenaltyToyModel()
    hook = OrthogonalRegularizer(COEFF, convs={"res4.0.conv1": conv})
    with pytest.raises(FloatingPointError, match="res4.0.conv1 became (inf|nan) at iteration 0"):
        train(model, SGD(trained(model)), [hook])


def test_default_convolutions_of_an_fpn_are_those_of_bottom_up():
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    model = nn.Module()
    with torch.device("meta"):
        model.backbone = build_backbone(cfg)
        model.roi_heads = nn.ModuleDict(
            {"res5": nn.Conv2d(4, 4, 1), "box_head": nn.Conv2d(4, 4, 1)}
        )
    names = list(default_convolutions(model))
    assert len(names) == 52 and {stage_of(name) for name in names} == {
        "res2",
        "res3",
        "res4",
        "res5",
    }
    assert all(name.startswith("backbone.bottom_up.res") for name in names)


def test_default_convolutions_have_the_c4_head_and_no_stem():
    model = PenaltyToyModel()
    model.roi_heads = nn.Module()
    model.roi_heads.res5 = nn.Sequential(nn.Conv2d(12, 12, 3))
    names = ["backbone.res2.0", "backbone.res3.0", "backbone.res3.2", "roi_heads.res5.0"]
    assert list(default_convolutions(model)) == names
    assert list(default_convolutions(model.backbone)) == ["res2.0", "res3.0", "res3.2"]


def test_stage_of_a_name():
    assert stage_of("backbone.bottom_up.res4.0.conv1") == "res4"
    assert stage_of("layer1.0.conv1") == "layer1"


@pytest.mark.parametrize(
    ("coeff", "options", "message"),
    [
        (-1e-4, {}, "must be >= 0; got -0.0001"),
        (float("nan"), {}, "must be >= 0; got nan"),
        (1e-4, {"form": "exakt"}, "'exakt'; it must be one of .*exact"),
        (1e-4, {"convs": {}}, "no convolution .*ORTHO_COEFF"),
        (1e-4, {"convs": [("fc", nn.Linear(2, 2))]}, "fc is a Linear"),
    ],
)
def test_wrong_arguments_are_named(coeff, options, message):
    with pytest.raises(ValueError, match=message):
        OrthogonalRegularizer(coeff, **options)


def test_computed_weight_is_refused():
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 1))
    with pytest.raises(ValueError, match="weight of res2.0.conv1 is computed"):
        OrthogonalRegularizer(1e-4, convs={"res2.0.conv1": conv})
