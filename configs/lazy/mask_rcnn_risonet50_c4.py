"""Mask R-CNN R-ISONet-50 C4, as configs/risonet50_c4.yaml, for detectron2's LazyConfig."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import ResNet

from d2_isonet.modeling.backbone.residual import ISONetBottleneckBlock
from d2_isonet.modeling.backbone.resnet import ISONetStem
from d2_isonet.utils.compat import zoo_config

from .recipe import dataloader, lr_multiplier, optimizer, pixels, regularizer, train  # noqa: F401

model = zoo_config("common/models/mask_rcnn_c4.py").model
model.update(pixels)
model.backbone.freeze_at = 2
model.backbone.stem = L(ISONetStem)()
model.backbone.stages = L(ResNet.make_default_stages)(
    depth=50, block_class=ISONetBottleneckBlock, norm="", stride_in_1x1=False
)
model.roi_heads.res5.update(block_class=ISONetBottleneckBlock, norm="", stride_in_1x1=False)

train.output_dir = "output/lazy/mask_rcnn_risonet50_c4"
