"""cfg builds backbones and heads; impossible options are refused."""

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_backbone, build_model
from detectron2.utils.events import EventStorage
from torch import nn

from d2_isonet.checkpoint.matching import architecture
from d2_isonet.config.loading import load_config

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


FIXUP = [
    *("MODEL.ISONET.BLOCK", "fixup", "MODEL.ISONET.INIT", "fixup"),
    *("MODEL.ISONET.RESIDUAL_SCALE", "1.0", "MODEL.ISONET.ACTIVATION", "ReLU"),
]
MODIFIED = [
    *("MODEL.ISONET.BLOCK", "modified", "MODEL.ISONET.RESIDUAL_SCALE", "None"),
    *("MODEL.ISONET.ACTIVATION", "PReLU", "MODEL.ISONET.INIT", "msra"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8"),
]
NARROW = ["MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8"]
TINY_DETECTOR = [
    *("MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.ROI_HEADS.NUM_CLASSES", "3"),
    *("MODEL.FPN.OUT_CHANNELS", "8", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8"),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", "50", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "20"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8"),
]
DECOUPLED = ["MODEL.ISONET.CONV", "Decoupled", "MODEL.ISONET.RESIDUAL_SCALE", "None"]


@pytest.mark.parametrize("name", ["risonet18_c4", "risonet18_dc5", "risonet18_fpn"])
@pytest.mark.parametrize(
    "network",
    [[*FIXUP, *NARROW], MODIFIED, [*DECOUPLED, *MODIFIED], [*DECOUPLED, *NARROW]],
    ids=["fixup", "modified", "modified_decoupled", "decoupled"],
)
def test_every_kind_of_network_trains_as_a_detector(name, network, coco_batch):
    model = build_model(config(name, *network, *TINY_DETECTOR))
    with EventStorage():
        sum(model(coco_batch).values()).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, g in gradients.items() if g is None or not g.isfinite().all()] == []


@pytest.mark.parametrize("network", [[*FIXUP, *NARROW], MODIFIED])
def test_the_head_of_c4_is_of_the_backbones_kind(network):
    res5 = build_model(config("risonet18_c4", *network)).roi_heads.res5
    whole = build_backbone(config("risonet18_dc5", *network)).res5
    assert {n: p.shape for n, p in res5.named_parameters()} == {
        n: p.shape for n, p in whole.named_parameters()
    }


@pytest.mark.parametrize("small", [True, False])
def test_fixup_from_the_config_has_scalar_biases_from_the_stem_on(small):
    opts = ["MODEL.ISONET.SMALL_IMAGES", str(small), "MODEL.RESNETS.OUT_FEATURES", "['res4']"]
    opts += ["MODEL.RESNETS.RES5_DILATION", "1", "MODEL.RESNETS.DEPTH", "8" if small else "18"]
    backbone = build_backbone(config("risonet18_dc5", *FIXUP, *NARROW, *opts))
    names = [n for n, _ in backbone.named_parameters() if n.endswith("scalar_bias")]
    assert names[0].startswith("stem.conv1.") and len(names) == 1 + 4 * (3 if small else 6)


@pytest.mark.parametrize("learned", [True, False])
def test_the_shift_is_what_the_config_says(learned):
    opts = ["MODEL.ISONET.SHIFT_INIT", "-2.0", "MODEL.ISONET.SHIFT_LEARNED", str(learned)]
    backbone = build_backbone(config("risonet18_dc5", "MODEL.BACKBONE.FREEZE_AT", "0", *opts))
    shifts = {n: p for n, p in backbone.named_parameters() if n.endswith(".shift")}
    assert len(shifts) == 17
    assert all(bool((p == -2).all()) and p.requires_grad == learned for p in shifts.values())
    assert all(m.bias is None for m in backbone.modules() if isinstance(m, nn.Conv2d))


def test_the_options_of_decoupled_convolutions_reach_them():
    opts = ["MODEL.DECOUPLED.MAGNITUDE", "Seg", "MODEL.DECOUPLED.ANGULAR", "sigmoid"]
    opts += ["MODEL.DECOUPLED.BETA", "0.25", "MODEL.DECOUPLED.SIGMOID_K_LEARNED", "True"]
    opts += ["MODEL.DECOUPLED.RADIUS", "4.0", "MODEL.DECOUPLED.RADIUS_LEARNED", "False"]
    opts += ["MODEL.DECOUPLED.RADIUS_SCALE", "none", "MODEL.DECOUPLED.ALPHA", "2.0"]
    conv = build_backbone(config("risonet18_dc5", *DECOUPLED, *NARROW, *opts)).res4[0].conv1
    options = conv.options
    assert (options.magnitude, options.angular) == ("Seg", "sigmoid")
    assert (options.alpha, options.beta) == (2.0, 0.25)
    assert (options.radius_scale, conv.radius.requires_grad) == ("none", False)
    assert conv.radius.tolist() == [2.0] * 32  # its square is the radius
    assert conv.sigmoid_k.requires_grad


def test_the_record_tells_networks_apart_that_share_their_names():
    def record(*opts):
        return architecture(config("risonet18_dc5", *DECOUPLED, *opts))

    assert {"block", "conv", "small_images"} <= set(architecture(config("risonet18_dc5")))
    assert record() != record("MODEL.DECOUPLED.MAGNITUDE", "Ball")
    assert record() != record("MODEL.DECOUPLED.ANGULAR", "linear")
    assert record() != record("MODEL.DECOUPLED.RADIUS_SCALE", "none")
    assert record() == record("MODEL.DECOUPLED.RADIUS_SCALE", "frozen")
    assert record() == record("MODEL.DECOUPLED.RADIUS", "2.0")
    seg = ["MODEL.DECOUPLED.MAGNITUDE", "Seg"]
    assert record(*seg) != record(*seg, "MODEL.DECOUPLED.BETA", "0.25")


def test_a_pyramid_of_a_dilated_network_is_refused():
    with pytest.raises(ValueError, match="set it to 1"):
        build_backbone(config("risonet18_fpn", "MODEL.RESNETS.RES5_DILATION", "2"))
