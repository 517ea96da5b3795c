"""C4's res5 head, built from the blocks of the backbone it belongs to."""

from detectron2.config import CfgNode
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn

from .backbone import stage_arguments
from .resnet import make_isonet_stage


@ROI_HEADS_REGISTRY.register()
class ISONetRes5ROIHeads(Res5ROIHeads):
    """detectron2's Res5ROIHeads whose res5 is the backbone's own (basic blocks at 18 and 34).

    detectron2's builds three ReLU bottlenecks with MODEL.RESNETS.NORM whatever the backbone is.
    """

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        blocks = make_isonet_stage(5, **stage_arguments(cfg))
        return nn.Sequential(*blocks), blocks[-1].out_channels
