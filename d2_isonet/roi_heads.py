"""C4's res5 head, built from the blocks of the backbone it belongs to."""

from detectron2.config import CfgNode
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn

from .architecture_checks import conflict
from .backbone import build_stage


@ROI_HEADS_REGISTRY.register()
class ISONetRes5ROIHeads(Res5ROIHeads):
    """detectron2's Res5ROIHeads whose res5 is the backbone's own (basic blocks at 18 and 34).

    detectron2's builds three ReLU bottlenecks with MODEL.RESNETS.NORM whatever the backbone is.
    """

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        if cfg.MODEL.ISONET.SMALL_IMAGES:
            raise conflict(
                cfg,
                "MODEL.ISONET.SMALL_IMAGES",
                "MODEL.ROI_HEADS.NAME",
                "the head is res5: SMALL_IMAGES must be False, or the heads 'StandardROIHeads'",
            )
        blocks = build_stage(cfg, 5)
        return nn.Sequential(*blocks), blocks[-1].out_channels
