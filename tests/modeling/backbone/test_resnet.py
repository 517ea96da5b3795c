"""Stem, blocks and stages."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg, instantiate
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling.backbone.resnet import (
    BottleneckBlock,
    ResNet,
    build_resnet_backbone,
)
from torch import nn

from d2_isonet import SReLU
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.backbone.residual import ISONetBasicBlock, ISONetBottleneckBlock
from d2_isonet.modeling.backbone.resnet import (
    SMALL_STEM,
    ISONetStem,
    make_isonet_stage,
    zero_last_norm,
)

RESNET = {"activation": "ReLU", "residual_scale": None, "init": "msra"}


def detectron2_resnet(depth: int, norm: str, dilation: int = 1) -> ResNet:
    cfg = get_cfg()
    resnets = cfg.MODEL.RESNETS
    resnets.DEPTH, resnets.NORM, resnets.RES5_DILATION = depth, norm, dilation
    resnets.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    resnets.STRIDE_IN_1X1 = False
    resnets.OUT_FEATURES = ["stem", "res2", "res3", "res4", "res5"]
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    return build_resnet_backbone(cfg, ShapeSpec(channels=3))


def our_resnet(depth: int, norm: str, dilation: int = 1) -> ResNet:
    width = 64 if depth < 50 else 256
    stages = [
        make_isonet_stage(
            stage,
            depth,
            res2_out_channels=width,
            dilation=dilation if stage == 5 else 1,
            norm=norm,
            **RESNET,
        )
        for stage in (2, 3, 4, 5)
    ]
    stem = ISONetStem(norm=norm, activation="ReLU", init="msra")
    return ResNet(stem, stages, out_features=["stem", "res2", "res3", "res4", "res5"])


def randomize_statistics(network: nn.Module) -> None:
    for name, tensor in network.state_dict().items():
        if "norm" in name and tensor.dtype.is_floating_point:
            tensor.uniform_(0.5, 1.5)


@pytest.mark.parametrize(
    ("depth", "norm", "dilation"),
    [(18, "BN", 1), (50, "BN", 1), (50, "FrozenBN", 1), (34, "FrozenBN", 1), (50, "FrozenBN", 2)],
)
def test_with_batch_norm_and_relu_this_is_detectron2s_resnet(depth, norm, dilation):
    theirs, ours = (f(depth, norm, dilation) for f in (detectron2_resnet, our_resnet))
    randomize_statistics(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected, actual = theirs.eval()(x), ours.eval()(x)
    assert list(actual) == list(expected)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=0)


def test_it_trains_like_detectron2s_resnet():
    theirs, ours = detectron2_resnet(18, "BN"), our_resnet(18, "BN")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    for network in (theirs, ours):
        network.train()(x)["res5"].square().mean().backward()
    gradient = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradient[name].grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("block", "extra"),
    [(ISONetBasicBlock, {}), (ISONetBottleneckBlock, {"bottleneck_channels": 4})],
)
def test_a_new_residual_block_is_its_shortcut_then_srelu(block, extra):
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(8, 8, **extra)(x), x.clamp(min=-1))


def test_a_new_plain_block_is_the_identity_above_its_shifts():
    x = torch.randn(2, 8, 6, 6)
    block = ISONetBasicBlock(8, 8, shortcut=False, residual_scale=None)
    assert torch.equal(block(x), x.clamp(min=-1))


@pytest.mark.parametrize("shape", ["block", "channel"])
def test_a_block_is_activation_of_shortcut_plus_scaled_residual(shape):
    block = ISONetBasicBlock(4, 6, stride=2, residual_scale=0.5, residual_scale_shape=shape)
    nn.init.normal_(block.conv1.weight)
    nn.init.normal_(block.conv2.weight)
    x = torch.randn(2, 4, 8, 8)
    shortcut = torch.cat([x[:, :, ::2, ::2], torch.zeros(2, 2, 4, 4)], dim=1)
    hidden = torch.conv2d(x, block.conv1.weight, stride=2, padding=1).clamp(min=-1)
    residual = torch.conv2d(hidden, block.conv2.weight, padding=1)
    expected = (shortcut + 0.5 * residual).clamp(min=-1)
    torch.testing.assert_close(block(x), expected)


def test_the_projection_is_not_scaled_and_a_strided_block_has_one_at_equal_widths():
    block = ISONetBasicBlock(4, 4, stride=2)
    assert block.shortcut.weight.shape == (4, 4, 1, 1)
    x = torch.randn(1, 4, 8, 8)
    assert torch.equal(block(x), x[:, :, ::2, ::2].clamp(min=-1))


@pytest.mark.parametrize(
    ("norm", "activation", "has_bias"),
    [
        ("", "SReLU", False),
        ("", SReLU, False),
        ("BN", "ReLU", False),
        ("", "ReLU", True),
        ("BN", "SReLU", False),
    ],
)
def test_a_convolution_has_a_bias_only_without_norm_and_shift(norm, activation, has_bias):
    block = ISONetBottleneckBlock(4, 8, bottleneck_channels=2, norm=norm, activation=activation)
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 4
    assert all((conv.bias is not None) == has_bias for conv in convs)


def test_the_delta_stem_keeps_pytorchs_default_weights():
    torch.manual_seed(7)
    stem = ISONetStem()
    torch.manual_seed(7)
    default = nn.Conv2d(3, 64, 7, bias=False)
    assert torch.equal(stem.conv1.weight, default.weight)


@pytest.mark.parametrize("init", ["delta_orthogonal", "phase_shifted_delta"])
def test_so_does_the_stem_of_its_relatives(init):
    torch.manual_seed(7)
    stem = ISONetStem(init=init)
    torch.manual_seed(7)
    assert torch.equal(stem.conv1.weight, ISONetStem().conv1.weight)


def test_the_small_stem_is_filled_like_any_convolution():
    x = torch.randn(1, 3, 8, 8)
    y = ISONetStem(3, 5, **SMALL_STEM)(x)
    assert torch.equal(y[:, :3], x.clamp(min=-1))
    assert torch.equal(y[:, 3:], torch.zeros(1, 2, 8, 8))


def small_resnet(depth: int, width: int) -> ResNet:
    options = {"stem_out_channels": width, "res2_out_channels": width, "norm": "BN", **RESNET}
    stages = [make_isonet_stage(i, depth, small_images=True, **options) for i in (2, 3, 4)]
    stem = ISONetStem(3, width, norm="BN", activation="ReLU", init="msra", **SMALL_STEM)
    return ResNet(stem, stages, num_classes=10, out_features=["res2", "res3", "res4", "linear"])


def test_resnet20_for_small_images_has_the_published_number_of_parameters():
    """0.27M (He et al. 2016, table 6): by hand, 269,722 and 2,752 of the two projections."""
    assert sum(p.numel() for p in small_resnet(20, 16).parameters()) == 269_722 + 2_752


@pytest.mark.parametrize(("depth", "width"), [(8, 4), (50, 4), (32, 96)])
def test_a_small_network_has_three_stages_of_basic_blocks(depth, width):
    with torch.device("meta"):
        network = small_resnet(depth, width)
        outputs = network(torch.empty(1, 3, 32, 32))
    assert [len(stage) for stage in network.stages] == [(depth - 2) // 6] * 3
    assert {k: tuple(v.shape[1:]) for k, v in outputs.items()} == {
        "res2": (width, 32, 32),
        "res3": (2 * width, 16, 16),
        "res4": (4 * width, 8, 8),
        "linear": (10,),
    }


@pytest.mark.parametrize("norm", ["BN", "GN"])
@pytest.mark.parametrize("depth", [18, 50])
def test_a_zeroed_last_norm_makes_a_block_its_shortcut(depth, norm):
    width = 32 if depth == 18 else 128
    block = make_isonet_stage(2, depth, res2_out_channels=width, norm=norm, **RESNET)[1]
    zero_last_norm(block)
    x = torch.randn(2, width, 4, 4)
    assert torch.equal(block(x), x.relu())


def test_a_frozen_last_norm_is_not_zeroed():
    block = ISONetBasicBlock(4, 4, norm="FrozenBN", **RESNET)
    zero_last_norm(block)
    assert block.conv2.norm.weight.tolist() == [1.0] * 4


def test_another_convolution_takes_all_places_but_the_projection():
    block = ISONetBottleneckBlock(
        4, 8, bottleneck_channels=2, activation="ReLU", init="msra", conv=DecoupledConv2d
    )
    convs = (block.conv1, block.conv2, block.conv3)
    assert all(type(conv) is DecoupledConv2d and conv.bias is None for conv in convs)
    assert type(block.shortcut) is Conv2d and block.shortcut.bias is not None


def test_the_stride_of_a_bottleneck_sits_on_the_3x3():
    block = ISONetBottleneckBlock(8, 8, bottleneck_channels=4, stride=2)
    assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == ((1, 1), (2, 2), (1, 1))


def test_a_dilated_basic_stage_keeps_its_resolution_and_dilates_every_3x3():
    blocks = make_isonet_stage(5, 18, res2_out_channels=64, dilation=2)
    convs = [m for b in blocks for m in b.modules() if isinstance(m, nn.Conv2d)]
    assert {conv.dilation for conv in convs if conv.kernel_size == (3, 3)} == {(2, 2)}
    assert nn.Sequential(*blocks)(torch.randn(1, 256, 9, 9)).shape == (1, 512, 9, 9)


def test_freezing_a_block_stops_shift_and_scale_too():
    block = ISONetBasicBlock(4, 4).freeze()
    assert not any(p.requires_grad for p in block.parameters())


def test_blocks_script():
    block = ISONetBottleneckBlock(8, 16, bottleneck_channels=4, stride=2).eval()
    x = torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(block)(x), block(x))


def test_lazy_config_builds_the_backbone():
    lazy = L(ResNet)(
        stem=L(ISONetStem)(in_channels=3, out_channels=64),
        stages=L(ResNet.make_default_stages)(depth=18, block_class=ISONetBasicBlock, norm=""),
        out_features=["res3", "res5"],
    )
    lazy.stages.activation = "ReLU"
    outputs = instantiate(lazy)(torch.randn(1, 3, 64, 64))
    assert {k: tuple(v.shape) for k, v in outputs.items()} == {
        "res3": (1, 128, 8, 8),
        "res5": (1, 512, 2, 2),
    }


def kept_bytes(block, x) -> int:
    """Bytes of the activations that block(x) saves for backward, input and output included."""
    kept = {}
    own = {tensor.data_ptr() for tensor in (*block.parameters(), *block.buffers())}

    def keep(tensor):
        if tensor.data_ptr() not in own and tensor.dim() == 4 and len(tensor) == len(x):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = (tensor, storage.nbytes())  # alive: no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        block(x)
    return sum(nbytes for _, nbytes in kept.values())


@pytest.mark.parametrize(("in_channels", "stride"), [(32, 1), (16, 2)])
def test_a_block_keeps_no_more_activations_than_detectron2s_with_frozen_bn(in_channels, stride):
    x = torch.randn(2, in_channels, 12, 12, requires_grad=True)
    size = {"bottleneck_channels": 8, "stride": stride}
    theirs = BottleneckBlock(in_channels, 32, **size, norm="FrozenBN")
    ours = ISONetBottleneckBlock(in_channels, 32, **size)
    assert 0 < kept_bytes(ours, x) <= kept_bytes(theirs, x)
