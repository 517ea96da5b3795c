"""CNN-9 as a backbone: shapes, formula, configuration."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from torch import nn

from d2_isonet import add_isonet_config
from d2_isonet.checkpoint.matching import architecture
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.backbone.cnn9 import CNN9, build_cnn9_backbone
from d2_isonet.modeling.roi_heads import ISONetRes5ROIHeads


def config(*opts):
    cfg = get_cfg()
    add_isonet_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_cnn9_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.NORM = ""
    cfg.MODEL.ISONET.ACTIVATION = "ReLU"
    cfg.MODEL.ISONET.INIT = "msra"
    cfg.merge_from_list(list(opts))
    return cfg


def test_features_have_the_widths_and_strides_of_their_names():
    model = CNN9(out_features=["res2", "res3", "res4"])
    features = model(torch.randn(2, 3, 32, 32))
    assert {name: tuple(x.shape[1:]) for name, x in features.items()} == {
        "res2": (64, 16, 16),
        "res3": (128, 8, 8),
        "res4": (256, 4, 4),
    }
    shapes = model.output_shape()
    assert {name: (s.channels, s.stride) for name, s in shapes.items()} == {
        "res2": (64, 2),
        "res3": (128, 4),
        "res4": (256, 8),
    }


def test_parameters_are_those_counted_by_hand():
    expected = 9 * (3 * 64 + 2 * 64**2 + 64 * 128 + 2 * 128**2 + 128 * 256 + 2 * 256**2)
    assert sum(p.numel() for p in CNN9().parameters()) == expected


@pytest.mark.parametrize("activation", ["ReLU", "Identity"])
def test_it_is_nine_convolutions_and_three_poolings(activation):
    model = CNN9(channels=4, activation=activation)
    x = images = torch.randn(2, 3, 16, 16)
    for stage in (model.res2, model.res3, model.res4):
        for conv in (stage.conv1, stage.conv2, stage.conv3):
            x = F.conv2d(x, conv.weight, padding=1)
            x = F.relu(x) if activation == "ReLU" else x
        x = F.max_pool2d(x, 2)
    torch.testing.assert_close(model(images)["res4"], x)


@pytest.mark.parametrize("activation", ["ReLU", "Identity"])
@pytest.mark.parametrize("norm", ["", "BN"])
@pytest.mark.parametrize("magnitude", ["", "Sphere", "Tanh", "Seg"])
def test_every_parameter_of_every_row_has_a_gradient(magnitude, norm, activation):
    opts = ["MODEL.RESNETS.NORM", norm, "MODEL.ISONET.ACTIVATION", activation]
    opts += ["MODEL.RESNETS.STEM_OUT_CHANNELS", "4", "MODEL.DECOUPLED.ANGULAR", "linear"]
    if magnitude:
        opts += ["MODEL.ISONET.CONV", "Decoupled", "MODEL.DECOUPLED.MAGNITUDE", magnitude]
    model = build_backbone(config(*opts), ShapeSpec(channels=3))
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 9
    assert all(isinstance(conv, DecoupledConv2d) == bool(magnitude) for conv in convs)
    model(torch.randn(2, 3, 32, 32))["res4"].square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_what_comes_after_the_last_feature_is_not_built():
    model = CNN9(channels=4, out_features=["res3", "res2"])
    features = model(torch.randn(1, 3, 16, 16))
    assert list(features) == list(model.output_shape()) == ["res3", "res2"]
    features["res3"].square().mean().backward()
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"res2", "res3"}
    assert all(p.grad is not None for p in model.parameters())


def test_freezing_counts_from_res2():
    model = build_backbone(config("MODEL.BACKBONE.FREEZE_AT", "3"))
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"res4"}


GN = {"MODEL.RESNETS.NORM": "GN"}
# options, then what the error must name
IMPOSSIBLE = [
    ({"MODEL.RESNETS.NORM": "BNN"}, "MODEL.RESNETS.NORM is 'BNN'"),
    ({"MODEL.RESNETS.OUT_FEATURES": ["res5"]}, "OUT_FEATURES is .'res5'.; a CNN-9 has"),
    ({"MODEL.RESNETS.OUT_FEATURES": ["stem"]}, "OUT_FEATURES is .'stem'.; a CNN-9 has"),
    ({"MODEL.ISONET.ACTIVATION": "none"}, "MODEL.ISONET.ACTIVATION is .none."),
    ({"MODEL.ISONET.CONV": "Sphere"}, "MODEL.ISONET.CONV is 'Sphere'"),
    ({"MODEL.ISONET.INIT": "fixup"}, "NAME is 'build_cnn9_backbone' with .*INIT 'fixup'.*'msra'"),
    ({"MODEL.ISONET.BLOCK": "fixup"}, "'build_cnn9_backbone' with .*BLOCK 'fixup'.*'residual'"),
    ({"MODEL.ISONET.BLOCK": "modified"}, "'build_cnn9_backbone' with .*BLOCK 'modified'"),
    ({"MODEL.ISONET.SHORTCUT": False}, "'build_cnn9_backbone' with .*SHORTCUT False.*True"),
    ({"MODEL.ISONET.RESIDUAL_SCALE": 1.0}, "'build_cnn9_backbone' with .*SCALE 1.0.*null"),
    ({"MODEL.ISONET.RESIDUAL_SCALE_SHAPE": "channel"}, "cnn9_.* with .*'channel'.*'block'"),
    ({"MODEL.ISONET.ZERO_INIT_LAST_NORM": True}, "cnn9_.* with .*LAST_NORM True.*False"),
    ({"MODEL.RESNETS.DEPTH": 18}, "'build_cnn9_backbone' with .*DEPTH 18.*50"),
    ({"MODEL.RESNETS.NUM_GROUPS": 2}, "'build_cnn9_backbone' with .*NUM_GROUPS 2.*1"),
    ({"MODEL.RESNETS.RES5_DILATION": 2}, "'build_cnn9_backbone' with .*RES5_DILATION 2.*1"),
    ({"MODEL.RESNETS.DEFORM_ON_PER_STAGE": [True] * 4}, "DEFORM_ON_PER_STAGE is set"),
    ({"MODEL.RESNETS.RES2_OUT_CHANNELS": 32}, "STEM_OUT_CHANNELS is 64 with .*CHANNELS 32.*equal"),
    ({**GN, "MODEL.ISONET.NORM_GROUPS": 48}, r"NORM_GROUPS is 48 with .*'GN'.*\[64\]"),
    ({"MODEL.ISONET.CONV": "Decoupled", "MODEL.DECOUPLED.MAGNITUDE": ""}, "MAGNITUDE ''.*'Tanh'"),
]


@pytest.mark.parametrize(("options", "message"), IMPOSSIBLE, ids=[str(o) for o, _ in IMPOSSIBLE])
@pytest.mark.parametrize("small_images", [True, False])
def test_what_a_cnn9_has_not_is_refused(options, message, small_images):
    pairs = {"MODEL.ISONET.SMALL_IMAGES": small_images, **options}
    cfg = config(*(word for pair in pairs.items() for word in pair))
    with pytest.raises(ValueError, match=message):
        build_cnn9_backbone(cfg, ShapeSpec(channels=3))


def test_groups_that_divide_its_widths_are_legal_though_a_bottleneck_had_others():
    cfg = config(*("MODEL.RESNETS.NORM", "GN", "MODEL.ISONET.NORM_GROUPS", "3"),
                 *("MODEL.RESNETS.STEM_OUT_CHANNELS", "6"))  # fmt: skip
    norm = build_cnn9_backbone(cfg, ShapeSpec(channels=3)).res2.conv1.norm
    assert (norm.num_groups, norm.num_channels) == (3, 6)


def test_it_has_no_res5_for_a_head():
    cfg = config("MODEL.ROI_HEADS.NAME", "ISONetRes5ROIHeads")
    with pytest.raises(ValueError, match="cnn9_backbone' with .*'ISONetRes5ROIHeads'.*Standard"):
        ISONetRes5ROIHeads._build_res5_block(cfg)


def test_its_record_has_no_key_that_it_does_not_use():
    record = architecture(config())
    unused = ["MODEL.RESNETS.WIDTH_PER_GROUP", "32", "MODEL.ISONET.SMALL_IMAGES", "True"]
    unused += ["MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.ISONET.RESIDUAL_SCALE", "None"]
    assert record == architecture(config(*unused))
    for key, value in (("STEM_OUT_CHANNELS", "32"), ("NORM", "BN")):
        assert record != architecture(config(f"MODEL.RESNETS.{key}", value))
