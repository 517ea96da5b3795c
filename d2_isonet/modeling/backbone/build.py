"""Reads cfg into explicit arguments of stem and stages; registers the backbones."""

import functools
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import ResNet
from torch import nn

from d2_isonet.config.options import conflict
from d2_isonet.layers.activation import SReLU
from d2_isonet.layers.convolution import Activation, Convolution, Norm, ScalarBias
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.execution import Module, set_execution
from d2_isonet.utils.messages import UserError

from .checks import check_architecture, check_pyramid, res2_out_channels
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
    names = ("CHANNELS_LAST", "CHECKPOINTING", "COMPILE")
    return set_execution(module, **{name.lower(): cfg.MODEL.BACKBONE[name] for name in names})


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
    options = {"stem_out_channels": resnets.STEM_OUT_CHANNELS, "dilation": dilation}
    options["activation"] = activation_option(cfg)
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
    stages = [build_stage(cfg, stage) for stage in (2, 3, 4)]
    if not cfg.MODEL.ISONET.SMALL_IMAGES:
        stages.append(build_stage(cfg, 5, cfg.MODEL.RESNETS.RES5_DILATION))
    features, freeze_at = cfg.MODEL.RESNETS.OUT_FEATURES, cfg.MODEL.BACKBONE.FREEZE_AT
    backbone = ResNet(stem, stages, out_features=features, freeze_at=freeze_at)
    return apply_execution_options(cfg, backbone)


@BACKBONE_REGISTRY.register()
def build_isonet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """`build_isonet_backbone` with detectron2's FPN on top: p2 to p6, for Faster and Mask R-CNN,
    Cascade R-CNN and Panoptic FPN.

    Raises:
        UserError: cfg describes no possible network, a dilated res5, or one for small images.
    """
    return _pyramid(cfg, input_shape, lambda shapes: LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_isonet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """As detectron2's build_retinanet_resnet_fpn_backbone: p3 to p7, for RetinaNet and FCOS.

    Raises:
        UserError: as for `build_isonet_fpn_backbone`, or MODEL.RESNETS.OUT_FEATURES lacks res5.
    """

    def top_block(shapes: dict[str, ShapeSpec]) -> nn.Module:
        if "res5" not in shapes:
            what = f"MODEL.RESNETS.OUT_FEATURES is {list(shapes)}"
            raise UserError(what, "it must have res5, the input of p6")
        return LastLevelP6P7(shapes["res5"].channels, cfg.MODEL.FPN.OUT_CHANNELS)

    return _pyramid(cfg, input_shape, top_block)


def _pyramid(cfg: CfgNode, input_shape: ShapeSpec, top_block: Callable[[dict], nn.Module]) -> FPN:
    check_pyramid(cfg)
    if cfg.MODEL.ISONET.SMALL_IMAGES:
        remedy = "a pyramid needs res2 to res5: SMALL_IMAGES must be False, or the backbone "
        remedy += "'build_isonet_backbone'"
        raise conflict(cfg, "MODEL.ISONET.SMALL_IMAGES", "MODEL.BACKBONE.NAME", remedy)
    bottom_up = build_isonet_backbone(cfg, input_shape)
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block(bottom_up.output_shape()),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
