"""Mask R-CNN on R-ISONet-50 and on detectron2's ResNet-50, identical except for the backbone."""

import argparse
import copy
from collections.abc import Iterator
from functools import partial

import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.modeling.fusion import fuse_for_inference

from .measure import Comparison, compare_seconds

_DETECTRON2 = {
    "dc5": ("build_resnet_backbone", "StandardROIHeads"),
    "c4": ("build_resnet_backbone", "Res5ROIHeads"),
    "fpn": ("build_resnet_fpn_backbone", "StandardROIHeads"),
}


@torch.no_grad()
def compare_inference(options: argparse.Namespace) -> Iterator[Comparison]:
    """Inference of Mask R-CNN on R-ISONet-50, one image, against detectron2's R50 with FrozenBN.

    Rows of the whole detector and of the backbone alone, by head.
    """
    size = [96, 128] if options.quick else options.image_size
    image = training_batch(size, num_images=1)
    for head in options.head[:1] if options.quick else options.head:
        ours, peer = (model.eval() for model in build_pair(head, options))
        fused = fuse_for_inference(copy.deepcopy(ours))
        name = f"{head}, 1 image of {size[0]} x {size[1]}"
        detect = partial(peer, image)
        yield compare_seconds(name, partial(ours, image), detect, options, limit=0.97)
        yield compare_seconds(f"{name}, fused", partial(fused, image), detect, options, limit=0.90)
        x = ours.preprocess_image(image).tensor
        extract = partial(peer.backbone, x)
        for name, model in ((f"{head}, backbone", ours), (f"{head}, backbone, fused", fused)):
            yield compare_seconds(name, partial(model.backbone, x), extract, options)


def build_pair(head: str, options: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """Ours and detectron2's with FrozenBN, randomly initialized, in training mode."""
    backbone, roi_heads = _DETECTRON2[head]
    names = ("MODEL.BACKBONE.NAME", backbone, "MODEL.ROI_HEADS.NAME", roi_heads)
    peer = build_detector(f"resnet50_{head}", options, *names)
    for name, module in peer.named_modules():
        if name.endswith("conv3.norm"):  # without statistics each block would double the signal
            nn.init.constant_(module.weight, 0.1)
    return build_detector(f"risonet50_{head}", options), peer


def build_detector(name: str, options: argparse.Namespace, *opts: str) -> nn.Module:
    """The Mask R-CNN of configs/<name>.yaml, randomly initialized, in training mode."""
    opts = (*opts, "MODEL.WEIGHTS", "", "MODEL.DEVICE", options.device)
    config = load_config(f"configs/{name}.yaml", list(opts))
    torch.manual_seed(0)
    return build_model(config).train()


def training_batch(size: list[int], num_images: int = 2, num_objects: int = 8) -> list[dict]:
    """Images of `size` (height, width) with boxes and polygons spread over them."""
    return [_example(*size, num_objects) for _ in range(num_images)]


def _example(height: int, width: int, num_objects: int) -> dict:
    generator = torch.Generator().manual_seed(height + width)
    corner = torch.rand(num_objects, 2, generator=generator) * 0.6
    extent = 0.1 + torch.rand(num_objects, 2, generator=generator) * 0.3
    boxes = torch.cat([corner, corner + extent], 1) * torch.tensor([width, height] * 2)
    polygons = [[[x0, y0, x1, y0, x1, y1, x0, y1]] for x0, y0, x1, y1 in boxes.tolist()]
    instances = Instances(
        (height, width),
        gt_boxes=Boxes(boxes),
        gt_classes=torch.arange(num_objects) % 80,
        gt_masks=PolygonMasks(polygons),
    )
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    return {"image": image, "height": height, "width": width, "instances": instances}
