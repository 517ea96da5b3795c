"""Fixup blocks, stem and stages against the rules of Zhang et al. 2019."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d2_isonet.layers.convolution import ScalarBias
from d2_isonet.modeling.backbone.fixup import FixupBasicBlock, FixupBottleneckBlock
from d2_isonet.modeling.backbone.resnet import SMALL_STEM, ISONetStem, make_isonet_stage

FIXUP_STEM = {"norm": lambda channels: ScalarBias(), "activation": "ReLU", "init": "fixup"}
BLOCKS = [(FixupBasicBlock, {}), (FixupBottleneckBlock, {"bottleneck_channels": 4})]


def randomized(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def conv(x, layer):
    return F.conv2d(x, layer.weight, stride=layer.stride, padding=layer.padding)


@pytest.mark.parametrize(("block", "extra"), BLOCKS)
def test_a_new_block_is_its_shortcut_then_the_activation(block, extra):
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(8, 8, **extra)(x), x.clamp(min=0))
    projecting = block(8, 12, stride=2, **extra)
    assert torch.equal(projecting(x), projecting.shortcut(x).clamp(min=0))


def test_a_basic_block_is_its_formula():
    block = randomized(FixupBasicBlock(4, 6, stride=2))
    x = torch.randn(2, 4, 8, 8)
    b1a, b1b, b2a, b2b = (getattr(block, f"bias{i}").scalar_bias for i in ("1a", "1b", "2a", "2b"))
    hidden = torch.relu(conv(x + b1a, block.conv1) + b1b)
    residual = conv(hidden + b2a, block.conv2) * block.residual_scale + b2b
    expected = torch.relu(residual + conv(x + b1a, block.shortcut))
    torch.testing.assert_close(block(x), expected)


def test_a_bottleneck_is_its_formula_and_an_identity_shortcut_has_no_bias():
    block = randomized(FixupBottleneckBlock(6, 6, bottleneck_channels=3))
    x = torch.randn(2, 6, 5, 5)
    bias = {i: getattr(block, f"bias{i}").scalar_bias for i in ("1a", "1b", "2a", "2b", "3a", "3b")}
    hidden = torch.relu(conv(x + bias["1a"], block.conv1) + bias["1b"])
    hidden = torch.relu(conv(hidden + bias["2a"], block.conv2) + bias["2b"])
    residual = conv(hidden + bias["3a"], block.conv3) * block.residual_scale + bias["3b"]
    torch.testing.assert_close(block(x), torch.relu(residual + x))


@pytest.mark.parametrize(
    ("depth", "exponent", "channels"), [(18, -1 / 2, 512), (34, -1 / 2, 512), (50, -1 / 4, 512)]
)
def test_a_stage_scales_he_by_the_number_of_branches_of_the_network(depth, exponent, channels):
    branches = {18: 8, 34: 16, 50: 16}[depth]
    width = 64 if depth < 50 else 256
    block = make_isonet_stage(5, depth, block="fixup", res2_out_channels=width)[1]
    he = math.sqrt(2 / (channels * block.conv2.weight[0, 0].numel()))
    scaled = block.conv1 if depth < 50 else block.conv2
    assert scaled.weight.std().item() == pytest.approx(he * branches**exponent, rel=0.01)


def test_in_a_small_network_a_stage_counts_three_times_n_branches():
    block = make_isonet_stage(
        4, 56, block="fixup", small_images=True, stem_out_channels=64, res2_out_channels=64
    )[0]
    he = math.sqrt(2 / (256 * 9))
    assert block.conv1.weight.std().item() == pytest.approx(he * 27**-0.5, rel=0.01)
    assert block.shortcut.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.02)


@pytest.mark.parametrize(("block", "extra", "biases"), [(*BLOCKS[0], 4), (*BLOCKS[1], 6)])
def test_scalars_are_told_by_their_names_and_no_convolution_has_a_bias(block, extra, biases):
    parameters = dict(block(8, 12, **extra).named_parameters())
    scalars = {n: p for n, p in parameters.items() if n.endswith(".scalar_bias")}
    assert len(scalars) == biases
    assert all(p.tolist() == [0.0] for p in scalars.values())
    assert parameters["residual_scale"].tolist() == [1.0]
    assert not [name for name in parameters if name.split(".")[-1] == "bias"]


@pytest.mark.parametrize(("options", "size"), [({}, 4), (SMALL_STEM, 16)])
def test_the_stem_has_a_scalar_bias_before_its_activation(options, size):
    stem = ISONetStem(3, 8, **FIXUP_STEM, **options)
    assert isinstance(stem.conv1.norm, ScalarBias) and stem.conv1.bias is None
    nn.init.constant_(stem.conv1.norm.scalar_bias, 100.0)
    y = stem(torch.randn(1, 3, 16, 16))
    assert y.shape == (1, 8, size, size)
    assert bool((y > 50).all())


def test_the_7x7_stem_keeps_pytorchs_weights_as_in_the_authors_code():
    stem = ISONetStem(3, 512, **FIXUP_STEM)
    assert stem.conv1.weight.std().item() == pytest.approx(1 / math.sqrt(3 * 147), rel=0.02)


@pytest.mark.parametrize(("block", "extra"), BLOCKS)
def test_the_first_step_wakes_the_last_convolution_and_the_second_all(block, extra):
    block = block(8, 12, **extra)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    x = torch.randn(4, 8, 6, 6)
    asleep = []
    for _ in range(2):
        optimizer.zero_grad()
        block(x).square().mean().backward()
        asleep.append({n for n, p in block.named_parameters() if not p.grad.count_nonzero()})
        optimizer.step()
    last = "conv3.weight" if hasattr(block, "conv3") else "conv2.weight"
    assert "conv1.weight" in asleep[0] and last not in asleep[0]
    assert asleep[1] == set()


def test_a_dilated_stage_keeps_its_resolution():
    for depth, width in ((18, 16), (50, 32)):
        blocks = make_isonet_stage(
            5, depth, block="fixup", res2_out_channels=width, width_per_group=8, dilation=2
        )
        x = torch.randn(1, width * 4, 9, 9)
        assert nn.Sequential(*blocks)(x).shape == (1, width * 8, 9, 9)


@pytest.mark.parametrize(("block", "extra"), BLOCKS)
def test_fixup_blocks_script(block, extra):
    module = randomized(block(8, 12, stride=2, **extra)).eval()
    x = torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(module)(x), module(x))
