"""What is said of a convolution's weight, of shifts and of residual scales."""

import math

import pytest
import torch
from detectron2.modeling import build_backbone
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.isometry.measures import (
    linear_convolutions,
    measure_convolution,
    residual_scales,
    shifts_by_stage,
)
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.layers.weight_init import delta_fill, phase_shifted_delta_fill


def measured(*arguments, fill=delta_fill, **options):
    conv = nn.Conv2d(*arguments, bias=False, **options)
    fill(conv)
    return measure_convolution("res3.0.conv2", conv, 4)


@pytest.mark.parametrize(
    "layer", [(4, 4, 3), (4, 9, 1), (9, 4, 3), (4, 4, 3, 2), (4, 6, 1, 2), (6, 4, 1, 2)]
)
def test_a_delta_kernel_is_as_isometric_as_its_shape_allows(layer):
    found = measured(*layer)
    assert found.smallest == pytest.approx(1, abs=1e-6)
    assert found.largest == pytest.approx(1, abs=1e-6)
    assert found.condition == pytest.approx(1, abs=1e-6)
    assert (found.share_near_one, found.excess, found.stage) == (1, 0, "res3")


def test_zeros_that_the_shape_forces_do_not_count():
    # at each of 4 x 4 frequencies 6 rows, that read 4 channels of one pixel in four
    found = measured(4, 6, 1, stride=2)
    assert len(found.singular_values) == 4 * 16 and found.minimum == 1
    groups = measured(8, 12, 1, stride=2, groups=2)
    assert len(groups.singular_values) == 8 * 16 and groups.minimum == 2


def test_zeros_that_another_kernel_would_not_have_do_count():
    # what a delta of more outputs leaves zero at a stride
    found = measured(4, 6, 3, stride=2)
    assert (found.smallest, found.condition, found.minimum) == (0, math.inf, 0)
    assert (found.share_near_one, found.excess) == (pytest.approx(4 / 6), 1)
    assert measured(4, 6, 3, stride=2, fill=phase_shifted_delta_fill).condition < 1.001


def test_a_scaled_delta_has_that_scale():
    conv = nn.Conv2d(3, 3, 3, bias=False)
    delta_fill(conv)
    with torch.no_grad():
        conv.weight.mul_(2)
    found = measure_convolution("conv", conv)
    assert found.largest == pytest.approx(2) and found.share_near_one == 0
    assert found.excess == pytest.approx(3 * (2**2 - 1) ** 2 / 2)


def test_a_weight_that_is_not_finite_gives_nan():
    conv = nn.Conv2d(2, 2, 3)
    nn.init.constant_(conv.weight, math.nan)
    found = measure_convolution("conv", conv)
    assert math.isnan(found.smallest) and math.isnan(found.condition) and math.isnan(found.excess)


def test_convolutions_are_found_by_name_without_decoupled_ones():
    model = nn.ModuleDict(
        {
            "a": nn.Conv2d(1, 1, 1),
            "b": nn.Sequential(nn.ConvTranspose2d(1, 1, 2), nn.Linear(1, 1)),
            "c": DecoupledConv2d(1, 1, 1, bias=False),
        }
    )
    assert list(linear_convolutions(model)) == ["a", "b.0"]


def test_shifts_and_scales_come_from_a_state_dict():
    options = [
        "MODEL.RESNETS.STEM_OUT_CHANNELS=4", "MODEL.RESNETS.RES2_OUT_CHANNELS=4",
        "MODEL.ISONET.RESIDUAL_SCALE_SHAPE=channel", "MODEL.ISONET.SHIFT_INIT=-2",
    ]  # fmt: skip
    backbone = build_backbone(load_config("configs/imagenet/risonet18.yaml", options))
    nn.init.constant_(backbone.res4[1].residual_scale, 0.5)
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    shifts = shifts_by_stage(state)
    sizes = {"stem": 4, "res2": 4 * 4, "res3": 4 * 8, "res4": 4 * 16, "res5": 4 * 32}
    assert {stage: len(values) for stage, values in shifts.items()} == sizes
    assert all((values == -2).all() for values in shifts.values())
    scales = residual_scales(state)
    assert len(scales) == 8 and scales["backbone.res4.1"].tolist() == [0.5] * 16
    assert scales["backbone.res4.0"].tolist() == [0.0] * 16
