"""C4's res5 head, built from the blocks of its backbone."""

from detectron2.config import CfgNode
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn

from d2_isonet.config.options import CNN9_BACKBONE, conflict, value_of
from d2_isonet.modeling.backbone.build import apply_execution_options, build_stage
from d2_isonet.modeling.backbone.checks import check_architecture


@ROI_HEADS_REGISTRY.register()
class ISONetRes5ROIHeads(Res5ROIHeads):
    """detectron2's Res5ROIHeads whose res5 is the backbone's own (basic blocks at 18 and 34).

    detectron2's has three ReLU bottlenecks with MODEL.RESNETS.NORM for every backbone.
    """

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        _check_res5(cfg)
        check_architecture(cfg)
        blocks = build_stage(cfg, 5)
        return apply_execution_options(cfg, nn.Sequential(*blocks)), blocks[-1].out_channels


def _check_res5(cfg: CfgNode) -> None:
    """Raise UserError if the network has no res5 that could be a head."""
    for key, is_wrong, remedy in (
        ("MODEL.BACKBONE.NAME", lambda x: x == CNN9_BACKBONE,
         "the head is res5, which a CNN-9 does not have: NAME must be 'build_isonet_backbone'"),
        ("MODEL.ISONET.SMALL_IMAGES", bool, "the head is res5: SMALL_IMAGES must be False"),
        ("MODEL.RESNETS.RES5_DILATION", lambda x: x != 1,
         "a region of one size needs no dilation: RES5_DILATION must be 1"),
    ):  # fmt: skip
        if is_wrong(value_of(cfg, key)):
            remedy += ", or the heads 'StandardROIHeads'"
            raise conflict(cfg, key, "MODEL.ROI_HEADS.NAME", remedy)
