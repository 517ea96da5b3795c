"""A fused network computes the same as the network, in float64 and with fused kernels."""

import pytest
import torch
from detectron2.modeling import build_backbone, build_model
from narrow_networks import BASIC, NARROW, away_from_init
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.modeling.backbone.residual import ISONetBottleneckBlock
from d2_isonet.modeling.fusion import FusedBackbone, FusedBlocks, fuse_for_inference

SMALL_IMAGES = ["MODEL.ISONET.SMALL_IMAGES", "True", "MODEL.RESNETS.DEPTH", "14",
                "MODEL.RESNETS.RES5_DILATION", "1",
                "MODEL.RESNETS.OUT_FEATURES", "['res2', 'res4']"]  # fmt: skip


def bottom_up(name: str, *opts: str) -> nn.Module:
    backbone = build_backbone(load_config(f"configs/{name}.yaml", [*NARROW, *opts]))
    return away_from_init(getattr(backbone, "bottom_up", backbone))


@pytest.mark.parametrize(
    ("name", "opts"),
    [
        ("risonet50_dc5", []),
        ("risonet50_fpn", []),
        ("risonet50_fpn", ["MODEL.RESNETS.OUT_FEATURES", "['stem', 'res3']",
                           "MODEL.FPN.IN_FEATURES", "['res3']"]),
        ("risonet50_c4", ["MODEL.RESNETS.STRIDE_IN_1X1", "True"]),
        ("risonet50_c4", ["MODEL.RESNETS.NUM_GROUPS", "2"]),
        ("risonet50_dc5", ["MODEL.ISONET.RESIDUAL_SCALE_SHAPE", "channel"]),
        ("isonet50_dc5", []),
        ("risonet18_dc5", BASIC),
        ("risonet18_fpn", BASIC),
        ("risonet18_dc5", [*BASIC, *SMALL_IMAGES]),
    ],
)  # fmt: skip
def test_features_stay(name, opts):
    network = bottom_up(name, *opts)
    x = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = network.double()(x)
        exact = FusedBackbone(network)(x)
        in_float = FusedBackbone(network.float())(x.float())  # by fused kernels on a CPU
    assert list(exact) == list(expected) == list(in_float)
    for feature, value in expected.items():
        torch.testing.assert_close(exact[feature], value, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(in_float[feature].double(), value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("head", ["c4", "dc5", "fpn"])
def test_a_detector_finds_the_same(head):
    torch.manual_seed(1)
    opts = ["MODEL.MASK_ON", "False", "MODEL.ROI_HEADS.NUM_CLASSES", "3",
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0"]  # fmt: skip
    config = load_config(f"configs/risonet50_{head}.yaml", [*NARROW, *opts])
    model = away_from_init(build_model(config))
    image = torch.randint(0, 256, (3, 128, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = model([{"image": image}])[0]["instances"]
        assert fuse_for_inference(model) is model
        found = model([{"image": image}])[0]["instances"]
    assert len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-4)


def test_only_the_maxima_before_padded_convolutions_stay():
    block = away_from_init(ISONetBottleneckBlock(16, 16, bottleneck_channels=4))
    fused = FusedBlocks([block])
    x = torch.randn(1, 16, 8, 8)
    with torch.no_grad(), torch.profiler.profile() as profile:
        fused(x)
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["aten::maximum"] == 1
    assert calls.get("aten::relu_", 0) == 0 and calls["mkldnn::_convolution_pointwise"] == 3


def test_one_network_takes_images_of_any_size_and_number():
    network = bottom_up("risonet50_dc5")
    fused = FusedBackbone(network)
    for shape in [(1, 3, 64, 96), (2, 3, 70, 45), (1, 3, 160, 32)]:
        x = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(fused(x)["res5"], network(x)["res5"], rtol=1e-3, atol=1e-4)


def test_its_shape_is_the_networks():
    network = bottom_up("risonet50_fpn")
    assert FusedBackbone(network).output_shape() == network.output_shape()


def test_no_proposals_are_no_error():
    block = away_from_init(ISONetBottleneckBlock(16, 16, bottleneck_channels=4))
    assert FusedBlocks([block])(torch.zeros(0, 16, 7, 7)).shape == (0, 16, 7, 7)


@pytest.mark.parametrize("name", ["resnet50_dc5", "fixup50_dc5", "decoupled18_dc5"])
def test_what_has_no_shifts_to_fold_is_refused(name):
    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""]
    backbone = build_backbone(load_config(f"configs/{name}.yaml", opts))
    with pytest.raises(ValueError, match="can be fused"):
        FusedBackbone(backbone)
