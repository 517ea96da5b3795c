"""Mask R-CNN on R-ISONet-50 and on detectron2's own ResNet-50, alike but for the backbone."""

import argparse

import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from torch import nn

from d2_isonet.command_line import load_config

_DETECTRON2 = {
    "dc5": ("build_resnet_backbone", "StandardROIHeads"),
    "c4": ("build_resnet_backbone", "Res5ROIHeads"),
    "fpn": ("build_resnet_fpn_backbone", "StandardROIHeads"),
}


def build_pair(head: str, options: argparse.Namespace, *opts: str) -> tuple[nn.Module, nn.Module]:
    """(ours, detectron2's with FrozenBN), randomly initialized, in training mode."""
    opts = (*opts, "MODEL.WEIGHTS", "", "MODEL.DEVICE", options.device)
    ours = load_config(f"configs/risonet50_{head}.yaml", list(opts))
    peer = load_config(f"configs/resnet50_{head}.yaml", list(opts))
    peer.MODEL.BACKBONE.NAME, peer.MODEL.ROI_HEADS.NAME = _DETECTRON2[head]
    models = []
    for config in (ours, peer):
        torch.manual_seed(0)
        models.append(build_model(config).train())
    _keep_finite(models[1])
    return models[0], models[1]


def _keep_finite(resnet: nn.Module) -> None:
    """Frozen norms without their statistics double the signal in each block: quench branches."""
    for name, module in resnet.named_modules():
        if name.endswith("conv3.norm"):
            nn.init.constant_(module.weight, 0.1)


def training_batch(size: list[int], num_images: int = 2, num_objects: int = 8) -> list[dict]:
    """Images of `size` (height, width) with boxes and polygons spread over them."""
    return [_example(size, num_objects) for _ in range(num_images)]


def _example(size: list[int], num_objects: int) -> dict:
    height, width = size
    generator = torch.Generator().manual_seed(height + width)
    corner = torch.rand(num_objects, 2, generator=generator) * 0.6
    extent = 0.1 + torch.rand(num_objects, 2, generator=generator) * 0.3
    boxes = torch.cat([corner, corner + extent], 1) * torch.tensor([width, height] * 2)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(boxes)
    instances.gt_classes = torch.arange(num_objects) % 80
    polygons = [[[x0, y0, x1, y0, x1, y1, x0, y1]] for x0, y0, x1, y1 in boxes.tolist()]
    instances.gt_masks = PolygonMasks(polygons)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    return {"image": image, "height": height, "width": width, "instances": instances}
