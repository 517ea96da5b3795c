"""From cfg to the explicit arguments of stem and stages; the registered backbones."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.modeling.backbone.resnet import ResNet

from .resnet import NUM_BLOCKS, ISONetStem, make_isonet_stage

NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
# detectron2's default of RES2_OUT_CHANNELS: a bottleneck's width, and wrong for a basic block.
_BOTTLENECK_RES2_OUT_CHANNELS = 256


def check_architecture(cfg: CfgNode) -> None:
    """Raise ValueError naming the key, its value and the remedy where cfg asks the impossible."""
    resnets = cfg.MODEL.RESNETS
    if resnets.DEPTH not in NUM_BLOCKS:
        raise ValueError(
            f"MODEL.RESNETS.DEPTH is {resnets.DEPTH}; it must be one of {sorted(NUM_BLOCKS)}"
        )
    if resnets.NORM not in NORMS:
        raise ValueError(
            f"MODEL.RESNETS.NORM is {resnets.NORM!r}; it must be one of {list(NORMS)} ('' is none)"
        )
    if resnets.RES5_DILATION not in (1, 2):
        raise ValueError(f"MODEL.RESNETS.RES5_DILATION is {resnets.RES5_DILATION}; use 1 or 2")
    if any(resnets.DEFORM_ON_PER_STAGE):
        raise ValueError(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE is set; isometric blocks have no deformable form, "
            "leave it all False"
        )
    if resnets.DEPTH < 50 and resnets.NUM_GROUPS != 1:
        raise ValueError(
            f"MODEL.RESNETS.NUM_GROUPS is {resnets.NUM_GROUPS} at depth {resnets.DEPTH}; basic "
            "blocks have one group, use 1 or a depth of 50 and more"
        )


def _res2_out_channels(cfg: CfgNode) -> int:
    channels = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS
    if cfg.MODEL.RESNETS.DEPTH < 50 and channels == _BOTTLENECK_RES2_OUT_CHANNELS:
        return cfg.MODEL.RESNETS.STEM_OUT_CHANNELS
    return channels


def architecture(cfg: CfgNode) -> dict:
    """What a weights file must agree with cfg about, as plain types; see checkpoint.py."""
    resnets, isonet = cfg.MODEL.RESNETS, cfg.MODEL.ISONET
    return {
        "depth": resnets.DEPTH,
        "norm": resnets.NORM,
        "activation": isonet.ACTIVATION,
        "shortcut": isonet.SHORTCUT,
        "residual_scale": isonet.RESIDUAL_SCALE is not None,
        "residual_scale_shape": isonet.RESIDUAL_SCALE_SHAPE,
        "stem_out_channels": resnets.STEM_OUT_CHANNELS,
        "res2_out_channels": _res2_out_channels(cfg),
        "num_groups": resnets.NUM_GROUPS,
        "width_per_group": resnets.WIDTH_PER_GROUP,
        "stride_in_1x1": resnets.STRIDE_IN_1X1,
    }


def stage_arguments(cfg: CfgNode) -> dict:
    """Keyword arguments of `make_isonet_stage` that all stages share."""
    check_architecture(cfg)
    resnets, isonet = cfg.MODEL.RESNETS, cfg.MODEL.ISONET
    return {
        "depth": resnets.DEPTH,
        "stem_out_channels": resnets.STEM_OUT_CHANNELS,
        "res2_out_channels": _res2_out_channels(cfg),
        "num_groups": resnets.NUM_GROUPS,
        "width_per_group": resnets.WIDTH_PER_GROUP,
        "stride_in_1x1": resnets.STRIDE_IN_1X1,
        "norm": resnets.NORM,
        "activation": isonet.ACTIVATION,
        "shortcut": isonet.SHORTCUT,
        "residual_scale": isonet.RESIDUAL_SCALE,
        "residual_scale_shape": isonet.RESIDUAL_SCALE_SHAPE,
        "init": isonet.INIT,
    }


@BACKBONE_REGISTRY.register()
def build_isonet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """ISONet, R-ISONet or, by options, ResNet, in detectron2's ResNet container.

    MODEL.RESNETS.RES5_DILATION 2 gives DC5 at every depth; MODEL.BACKBONE.FREEZE_AT is honoured.
    """
    arguments = stage_arguments(cfg)
    stem = ISONetStem(
        input_shape.channels,
        arguments["stem_out_channels"],
        norm=arguments["norm"],
        activation=arguments["activation"],
        init=arguments["init"],
    )
    stages = [
        make_isonet_stage(
            stage, dilation=cfg.MODEL.RESNETS.RES5_DILATION if stage == 5 else 1, **arguments
        )
        for stage in (2, 3, 4, 5)
    ]
    return ResNet(
        stem,
        stages,
        out_features=cfg.MODEL.RESNETS.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )


@BACKBONE_REGISTRY.register()
def build_isonet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """`build_isonet_backbone` with detectron2's FPN on top."""
    if cfg.MODEL.RESNETS.RES5_DILATION != 1:
        raise ValueError(
            f"MODEL.RESNETS.RES5_DILATION is {cfg.MODEL.RESNETS.RES5_DILATION} with an FPN, whose "
            "levels must halve in size: set it to 1, or use a *_dc5.yaml without FPN"
        )
    return FPN(
        bottom_up=build_isonet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
