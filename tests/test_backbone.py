"""From cfg to networks: backbones, heads and what they refuse."""

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_backbone, build_model
from detectron2.utils.events import EventStorage
from torch import nn

from d2_isonet.backbone import architecture
from d2_isonet.command_line import load_config

NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    FrozenBatchNorm2d,
)
SMALL = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"]


def config(name: str, *opts: str):
    return load_config(f"configs/{name}.yaml", [*SMALL, *opts])


@pytest.mark.parametrize(
    ("name", "feature", "channels", "stride"),
    [
        ("risonet18_c4", "res4", 256, 16),
        ("risonet50_c4", "res4", 1024, 16),
        ("risonet18_dc5", "res5", 512, 16),
        ("risonet34_dc5", "res5", 512, 16),
        ("risonet50_dc5", "res5", 2048, 16),
        ("risonet18_fpn", "p5", 256, 32),
    ],
)
def test_shape_and_stride_are_as_told(name, feature, channels, stride):
    backbone = build_backbone(config(name))
    told = backbone.output_shape()[feature]
    assert (told.channels, told.stride) == (channels, stride)
    with torch.no_grad():
        outputs = backbone(torch.randn(1, 3, 64, 96))
    assert outputs[feature].shape == (1, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize("name", ["risonet18_c4", "risonet34_dc5", "risonet50_c4", "risonet18_fpn"])
def test_no_normalization_layer_anywhere_in_the_detector(name):
    model = build_model(config(name))
    assert [n for n, m in model.named_modules() if isinstance(m, NORMS)] == []


@pytest.mark.parametrize(("depth", "blocks"), [(18, 2), (34, 3), (50, 3)])
def test_the_c4_head_is_the_backbones_own_res5(depth, blocks):
    res5 = build_model(config(f"risonet{depth}_c4")).roi_heads.res5
    whole = build_backbone(config(f"risonet{depth}_fpn")).bottom_up.res5
    assert len(res5) == blocks
    assert {k: v.shape for k, v in res5.state_dict().items()} == {
        k: v.shape for k, v in whole.state_dict().items()
    }


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 3])
def test_freeze_at_is_honoured(freeze_at):
    backbone = build_backbone(config("risonet18_dc5", "MODEL.BACKBONE.FREEZE_AT", str(freeze_at)))
    parts = ["stem", "res2", "res3", "res4", "res5"]
    frozen = [
        part
        for part in parts
        if not any(p.requires_grad for p in getattr(backbone, part).parameters())
    ]
    assert frozen == parts[:freeze_at]


def test_basic_blocks_take_the_stems_width_where_the_config_has_detectron2s_bottleneck_default():
    cfg = config("risonet18_c4", "MODEL.RESNETS.RES2_OUT_CHANNELS", "256")
    assert architecture(cfg)["res2_out_channels"] == 64
    assert build_backbone(cfg).output_shape()["res4"].channels == 256


def test_a_narrow_network_keeps_the_widths_it_asks_for():
    cfg = config(
        "risonet18_c4", "MODEL.RESNETS.STEM_OUT_CHANNELS", "16", "MODEL.RESNETS.RES2_OUT_CHANNELS",
        "24",
    )  # fmt: skip
    assert build_backbone(cfg).output_shape()["res4"].channels == 96


@pytest.mark.parametrize("name", ["risonet18_c4", "risonet18_dc5", "risonet18_fpn"])
def test_every_trainable_parameter_of_a_detector_gets_a_gradient(name, coco_batch):
    cfg = config(name, "MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.ROI_HEADS.NUM_CLASSES", "3")
    model = build_model(cfg)
    with EventStorage():
        losses = model(coco_batch)
    assert set(losses) >= {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls"}
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("shape", ["block", "channel"])
def test_the_residual_scale_shape_reaches_the_blocks(shape):
    cfg = config("risonet18_dc5", "MODEL.ISONET.RESIDUAL_SCALE_SHAPE", shape)
    scale = build_backbone(cfg).res3[0].residual_scale
    assert scale.numel() == {"block": 1, "channel": 128}[shape]


@pytest.mark.parametrize(
    ("name", "opts", "message"),
    [
        ("risonet50_c4", ["MODEL.RESNETS.DEPTH", "51"], r"DEPTH is 51.*18, 34, 50, 101, 152"),
        ("risonet50_c4", ["MODEL.RESNETS.NORM", "BNN"], "NORM is 'BNN'.*FrozenBN"),
        ("risonet50_c4", ["MODEL.ISONET.ACTIVATION", "RELU"], "'RELU'.*SReLU"),
        ("risonet50_c4", ["MODEL.ISONET.INIT", "dirac"], "'dirac'.*delta"),
        ("risonet50_fpn", ["MODEL.RESNETS.RES5_DILATION", "2"], "RES5_DILATION is 2 with an FPN"),
        ("risonet50_dc5", ["MODEL.RESNETS.RES5_DILATION", "4"], "RES5_DILATION is 4"),
        ("risonet18_c4", ["MODEL.RESNETS.NUM_GROUPS", "32"], "NUM_GROUPS is 32 at depth 18"),
        (
            "risonet50_c4",
            ["MODEL.RESNETS.DEFORM_ON_PER_STAGE", "[False,False,False,True]"],
            "DEFORM_ON_PER_STAGE",
        ),
    ],
)
def test_an_impossible_network_is_refused_by_name_and_remedy(name, opts, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(config(name, *opts))


def test_a_pyramid_of_a_dilated_network_is_refused():
    with pytest.raises(ValueError, match="set it to 1"):
        build_backbone(config("risonet18_fpn", "MODEL.RESNETS.RES5_DILATION", "2"))
