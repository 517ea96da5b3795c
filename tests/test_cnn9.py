"""CNN-9 as a backbone: shapes, its formula, what the configuration says of it."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from torch import nn

from d2_isonet import add_isonet_config
from d2_isonet.cnn9 import CNN9, build_cnn9_backbone
from d2_isonet.decoupled import DecoupledConv2d


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


def test_freezing_counts_from_res2():
    model = build_backbone(config("MODEL.BACKBONE.FREEZE_AT", "3"))
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"res4"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.RESNETS.NORM", "BNN", "MODEL.RESNETS.NORM is 'BNN'"),
        ("MODEL.RESNETS.OUT_FEATURES", "['res5']", "OUT_FEATURES is .'res5'.; a CNN-9 has"),
        ("MODEL.ISONET.ACTIVATION", "none", "MODEL.ISONET.ACTIVATION is .none."),
        ("MODEL.ISONET.CONV", "Sphere", "MODEL.ISONET.CONV is 'Sphere'"),
        ("MODEL.ISONET.INIT", "fixup", "MODEL.ISONET.INIT is 'fixup'"),
    ],
)
def test_unknown_names_are_refused(key, value, message):
    with pytest.raises(ValueError, match=message):
        build_cnn9_backbone(config(key, value), ShapeSpec(channels=3))
