"""The modified ResNet-18 of Decoupled Networks, by hand counts and by its formulas."""

import functools

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling.backbone.resnet import ResNet
from torch import nn

from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.backbone.modified_resnet import (
    ModifiedStageConv,
    ModifiedStem,
    ModifiedUnit,
    make_modified_stage,
)

TANH = functools.partial(DecoupledConv2d, magnitude="Tanh")


def network(width: int = 8, dilation: int = 1, **options) -> ResNet:
    stages = [
        make_modified_stage(
            stage, stem_out_channels=width, dilation=dilation if stage == 5 else 1, **options
        )
        for stage in (2, 3, 4, 5)
    ]
    stem = ModifiedStem(3, width, **options)
    return ResNet(stem, stages, out_features=["res2", "res3", "res4", "res5"])


def number_of(model: nn.Module, kind: type = nn.Module) -> int:
    modules = (m for m in model.modules() if isinstance(m, kind))
    return sum(p.numel() for m in modules for p in m.parameters(recurse=False))


def test_parameters_are_those_counted_by_hand():
    model = network(128)
    units = 1 * 2 * 128**2 + 2 * 2 * 256**2 + 3 * 2 * 512**2 + 1 * 2 * 1024**2
    stage_convs = 128 * 256 + 256 * 512 + 512 * 1024
    stem = 3 * 128 * 7 * 7
    assert number_of(model, nn.Conv2d) == 9 * (units + stage_convs) + stem
    slopes = 128 + 1 * 128 + (1 + 2) * 256 + (1 + 3) * 512 + (1 + 1) * 1024
    assert number_of(model, nn.PReLU) == slopes
    assert number_of(model) == number_of(model, nn.Conv2d) + slopes  # no bias at all


def test_decoupled_convolutions_are_all_but_none():
    model = network(8, conv=TANH, norm="BN")
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 1 + 3 + 2 * (1 + 2 + 3 + 1)
    assert all(isinstance(conv, DecoupledConv2d) and conv.bias is None for conv in convs)


def test_strides_and_widths_are_a_detectors():
    model = network()
    shapes = model.output_shape()
    assert {n: (s.channels, s.stride) for n, s in shapes.items()} == {
        "res2": (8, 4),
        "res3": (16, 8),
        "res4": (32, 16),
        "res5": (64, 32),
    }
    features = model(torch.randn(1, 3, 64, 96))
    for name, shape in shapes.items():
        assert features[name].shape == (1, shape.channels, 64 // shape.stride, 96 // shape.stride)


def test_dilated_res5_keeps_the_resolution():
    model = network(dilation=2)
    assert model.output_shape()["res5"].stride == 16
    assert model(torch.randn(1, 3, 64, 64))["res5"].shape == (1, 64, 4, 4)
    convs = [m for m in model.res5.modules() if isinstance(m, nn.Conv2d)]
    assert {(conv.stride, conv.dilation, conv.padding) for conv in convs} == {
        ((1, 1), (2, 2), (2, 2))
    }


def test_unit_adds_its_branch_and_activates_nothing_after():
    unit = ModifiedUnit(4, activation="ReLU")
    x = torch.randn(2, 4, 6, 6)
    branch = F.conv2d(
        F.relu(F.conv2d(x, unit.conv1.weight, padding=1)), unit.conv2.weight, padding=1
    )
    torch.testing.assert_close(unit(x), x + branch)
    assert (unit(x) < 0).any()


def test_stage_convolution_activates():
    block = ModifiedStageConv(4, 8, conv="Conv2d", norm="", activation="ReLU")
    x = torch.randn(2, 4, 6, 6)
    expected = F.relu(F.conv2d(x, block.conv1.weight, stride=2, padding=1))
    torch.testing.assert_close(block(x), expected)


def test_stem_pools():
    stem = ModifiedStem(3, 4, activation="ReLU")
    x = torch.randn(1, 3, 32, 32)
    expected = F.max_pool2d(F.relu(F.conv2d(x, stem.conv1.weight, stride=2, padding=3)), 3, 2, 1)
    torch.testing.assert_close(stem(x), expected)


def test_filters_and_slopes_start_as_released():
    blocks = make_modified_stage(3)
    stage_conv, unit = blocks[0].conv1.weight, blocks[1].conv1.weight
    assert unit.std().item() == pytest.approx(0.01, rel=0.01)
    bound = (6 / (9 * 128 + 9 * 256)) ** 0.5  # Xavier's uniform
    assert bound * 0.999 < stage_conv.abs().max().item() <= bound
    slopes = [m.weight for block in blocks for m in block.modules() if isinstance(m, nn.PReLU)]
    assert len(slopes) == 3 and all((slope == 0).all() for slope in slopes)


@pytest.mark.parametrize("norm", ["", "BN"])
@pytest.mark.parametrize("conv", ["Conv2d", TANH], ids=["ordinary", "decoupled"])
def test_every_parameter_has_a_gradient(conv, norm):
    model = network(4, conv=conv, norm=norm)
    features = model(torch.randn(2, 3, 64, 64))
    sum(x.square().mean() for x in features.values()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without == []


def test_there_is_no_sixth_stage():
    with pytest.raises(ValueError, match="res2 to res5; got 6"):
        make_modified_stage(6)
