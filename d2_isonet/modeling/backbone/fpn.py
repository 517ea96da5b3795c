"""Registers detectron2's feature pyramids on the backbones of this package."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import ResNet
from torch import nn

from d2_isonet.config.options import conflict
from d2_isonet.utils.messages import UserError

from .build import build_isonet_backbone
from .checks import check_pyramid


@BACKBONE_REGISTRY.register()
def build_isonet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """`build_isonet_backbone` with detectron2's FPN on top: p2 to p6, for Faster and Mask R-CNN,
    Cascade R-CNN and Panoptic FPN.

    Raises:
        UserError: cfg describes no possible network, a dilated res5, or one for small images.
    """
    return _pyramid(cfg, _bottom_up(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_isonet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """As detectron2's build_retinanet_resnet_fpn_backbone: p3 to p7, for RetinaNet and FCOS.

    Raises:
        UserError: as for `build_isonet_fpn_backbone`, or MODEL.RESNETS.OUT_FEATURES lacks res5.
    """
    bottom_up = _bottom_up(cfg, input_shape)
    shapes = bottom_up.output_shape()
    if "res5" not in shapes:
        raise UserError(
            f"MODEL.RESNETS.OUT_FEATURES is {list(shapes)}", "it must have res5, the input of p6"
        )
    top_block = LastLevelP6P7(shapes["res5"].channels, cfg.MODEL.FPN.OUT_CHANNELS)
    return _pyramid(cfg, bottom_up, top_block)


def _bottom_up(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    check_pyramid(cfg)
    if cfg.MODEL.ISONET.SMALL_IMAGES:
        remedy = (
            "a pyramid needs res2 to res5: SMALL_IMAGES must be False, or the backbone "
            "'build_isonet_backbone'"
        )
        raise conflict(cfg, "MODEL.ISONET.SMALL_IMAGES", "MODEL.BACKBONE.NAME", remedy)
    return build_isonet_backbone(cfg, input_shape)


def _pyramid(cfg: CfgNode, bottom_up: ResNet, top_block: nn.Module) -> FPN:
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
