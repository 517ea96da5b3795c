"""From cfg to the explicit arguments of stem and stages; the registered backbones."""

import functools
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.resnet import ResNet
from torch import nn

from d2_isonet.layers.activation import SReLU
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.execution import Module, set_execution

from .checks import check_architecture, res2_out_channels
from .fixup import scalar_bias_norm
from .modified_resnet import ModifiedStem, make_modified_stage
from .resnet import ISONetSmallStem, ISONetStem, make_isonet_stage, zero_last_norm


def activation_option(cfg: CfgNode) -> str | Callable[[int], nn.Module]:
    """`get_activation`'s argument that MODEL.ISONET.ACTIVATION and SHIFT_* ask for."""
    isonet = cfg.MODEL.ISONET
    if isonet.ACTIVATION != "SReLU":
        return isonet.ACTIVATION
    return functools.partial(
        SReLU, init=isonet.SHIFT_INIT, learnable=isonet.SHIFT_LEARNED, inplace=True
    )


def norm_option(cfg: CfgNode) -> str | Callable[[int], nn.Module]:
    """`get_norm`'s argument that MODEL.RESNETS.NORM and NORM_GROUPS ask for."""
    if cfg.MODEL.RESNETS.NORM != "GN":
        return cfg.MODEL.RESNETS.NORM
    return functools.partial(nn.GroupNorm, cfg.MODEL.ISONET.NORM_GROUPS)


def conv_option(cfg: CfgNode) -> str | Callable[..., nn.Conv2d]:
    """`get_conv`'s argument that MODEL.ISONET.CONV and MODEL.DECOUPLED ask for."""
    if cfg.MODEL.ISONET.CONV != "Decoupled":
        return cfg.MODEL.ISONET.CONV
    options = {key.lower(): value for key, value in cfg.MODEL.DECOUPLED.items()}
    del options["from_conv2d"]  # checkpoint.py's
    return functools.partial(DecoupledConv2d, **options)


def as_asked(cfg: CfgNode, module: Module) -> Module:
    """`module`, run as MODEL.BACKBONE.CHANNELS_LAST, CHECKPOINTING and COMPILE ask for."""
    backbone = cfg.MODEL.BACKBONE
    return set_execution(
        module,
        channels_last=backbone.CHANNELS_LAST,
        checkpointing=backbone.CHECKPOINTING,
        compiled=backbone.COMPILE,
    )


def build_stem(cfg: CfgNode, in_channels: int) -> CNNBlockBase:
    """The stem of the network that cfg asks for.

    Raises:
        UserError: cfg asks for the impossible.
    """
    check_architecture(cfg)
    isonet, out_channels = cfg.MODEL.ISONET, cfg.MODEL.RESNETS.STEM_OUT_CHANNELS
    options: dict[str, Any] = {
        "norm": scalar_bias_norm if isonet.BLOCK == "fixup" else norm_option(cfg),
        "activation": activation_option(cfg),
        "conv": conv_option(cfg),
    }
    if isonet.BLOCK == "modified":
        return ModifiedStem(in_channels, out_channels, **options)
    stem_class = ISONetSmallStem if isonet.SMALL_IMAGES else ISONetStem
    return stem_class(in_channels, out_channels, init=isonet.INIT, **options)


def build_stage(cfg: CfgNode, stage: int, dilation: int = 1) -> list[CNNBlockBase]:
    """The blocks of res{stage} of the network that cfg asks for.

    Raises:
        UserError: cfg asks for the impossible.
    """
    check_architecture(cfg)
    resnets, isonet = cfg.MODEL.RESNETS, cfg.MODEL.ISONET
    options = {
        "stem_out_channels": resnets.STEM_OUT_CHANNELS,
        "dilation": dilation,
        "activation": activation_option(cfg),
    }
    if isonet.BLOCK != "fixup":
        options.update(norm=norm_option(cfg), conv=conv_option(cfg))
    if isonet.BLOCK == "modified":
        return make_modified_stage(stage, **options)
    if isonet.BLOCK == "residual":
        options["shortcut"] = isonet.SHORTCUT
        options["residual_scale_shape"] = isonet.RESIDUAL_SCALE_SHAPE
    blocks = make_isonet_stage(
        stage,
        resnets.DEPTH,
        block=isonet.BLOCK,
        small_images=isonet.SMALL_IMAGES,
        res2_out_channels=res2_out_channels(cfg),
        num_groups=resnets.NUM_GROUPS,
        width_per_group=resnets.WIDTH_PER_GROUP,
        stride_in_1x1=resnets.STRIDE_IN_1X1,
        residual_scale=isonet.RESIDUAL_SCALE,
        init=isonet.INIT,
        **options,
    )
    if isonet.ZERO_INIT_LAST_NORM:
        for block in blocks:
            zero_last_norm(block)
    return blocks


@BACKBONE_REGISTRY.register()
def build_isonet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """ISONet, R-ISONet and, by options, every other network, in detectron2's ResNet container.

    MODEL.RESNETS.RES5_DILATION 2 gives DC5 at every depth; MODEL.BACKBONE.FREEZE_AT is honoured.

    Raises:
        UserError: cfg asks for the impossible.
    """
    stem = build_stem(cfg, input_shape.channels)
    dilations = {5: cfg.MODEL.RESNETS.RES5_DILATION}
    num_stages = 3 if cfg.MODEL.ISONET.SMALL_IMAGES else 4
    stages = [
        build_stage(cfg, stage, dilations.get(stage, 1)) for stage in range(2, 2 + num_stages)
    ]
    backbone = ResNet(
        stem,
        stages,
        out_features=cfg.MODEL.RESNETS.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    return as_asked(cfg, backbone)
