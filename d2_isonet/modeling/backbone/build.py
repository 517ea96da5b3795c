"""Reads cfg into explicit arguments of stem and stages; registers the backbone."""

import functools
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.resnet import ResNet
from torch import nn

from d2_isonet.layers.activation import SReLU
from d2_isonet.layers.convolution import Activation, Convolution, Norm, ScalarBias
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.execution import Module, set_execution

from .checks import check_architecture, res2_out_channels
from .modified_resnet import ModifiedStem, make_modified_stage
from .resnet import SMALL_STEM, ISONetStem, make_isonet_stage, zero_last_norm


def activation_option(cfg: CfgNode) -> Activation:
    """MODEL.ISONET.ACTIVATION and SHIFT_* as the argument of `get_activation`."""
    isonet = cfg.MODEL.ISONET
    if isonet.ACTIVATION != "SReLU":
        return isonet.ACTIVATION
    return functools.partial(
        SReLU, init=isonet.SHIFT_INIT, learnable=isonet.SHIFT_LEARNED, inplace=True
    )


def norm_option(cfg: CfgNode) -> Norm:
    """MODEL.RESNETS.NORM and MODEL.ISONET.NORM_GROUPS as the argument of `get_norm`."""
    if cfg.MODEL.RESNETS.NORM != "GN":
        return cfg.MODEL.RESNETS.NORM
    return functools.partial(nn.GroupNorm, cfg.MODEL.ISONET.NORM_GROUPS)


def conv_option(cfg: CfgNode) -> Convolution:
    """MODEL.ISONET.CONV and MODEL.DECOUPLED as the argument of `get_conv`."""
    if cfg.MODEL.ISONET.CONV != "Decoupled":
        return cfg.MODEL.ISONET.CONV
    options = {key.lower(): value for key, value in cfg.MODEL.DECOUPLED.items()}
    del options["from_conv2d"]  # an option of the checkpointer
    return functools.partial(DecoupledConv2d, **options)


def apply_execution_options(cfg: CfgNode, module: Module) -> Module:
    """`module` with MODEL.BACKBONE.CHANNELS_LAST, CHECKPOINTING and COMPILE applied."""
    backbone = cfg.MODEL.BACKBONE
    return set_execution(
        module,
        channels_last=backbone.CHANNELS_LAST,
        checkpointing=backbone.CHECKPOINTING,
        compiled=backbone.COMPILE,
    )


def _build_stem(cfg: CfgNode, in_channels: int) -> CNNBlockBase:
    isonet, out_channels = cfg.MODEL.ISONET, cfg.MODEL.RESNETS.STEM_OUT_CHANNELS
    options: dict[str, Any] = {
        # Fixup: activation(conv(x) + b)
        "norm": (lambda channels: ScalarBias()) if isonet.BLOCK == "fixup" else norm_option(cfg),
        "activation": activation_option(cfg),
        "conv": conv_option(cfg),
    }
    if isonet.BLOCK == "modified":
        return ModifiedStem(in_channels, out_channels, **options)
    if isonet.SMALL_IMAGES:
        options |= SMALL_STEM
    return ISONetStem(in_channels, out_channels, init=isonet.INIT, **options)


def build_stage(cfg: CfgNode, stage: int, dilation: int = 1) -> list[CNNBlockBase]:
    """The blocks of res{stage}, for a cfg that `check_architecture` has accepted."""
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

    MODEL.RESNETS.RES5_DILATION 2 gives DC5 at every depth; MODEL.BACKBONE.FREEZE_AT has its usual
    meaning.

    Raises:
        UserError: cfg describes no possible network.
    """
    check_architecture(cfg)
    stem = _build_stem(cfg, input_shape.channels)
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
    return apply_execution_options(cfg, backbone)
