"""Mask R-CNN on R-ISONet-50 and on detectron2's ResNet-50, identical except for the backbone."""

import argparse
import copy
from collections.abc import Callable, Iterator

import torch
from detectron2.config import CfgNode
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


def compare_inference(options: argparse.Namespace) -> Iterator[Comparison]:
    """Inference of Mask R-CNN on R-ISONet-50, one image, against detectron2's R50 with FrozenBN.

    Rows of the whole detector and of the backbone alone, by head.
    """
    size = [96, 128] if options.quick else options.image_size
    image = training_batch(size, num_images=1)
    for head in options.head[:1] if options.quick else options.head:
        ours, peer = (model.eval() for model in build_pair(head, options))
        fused = fuse_for_inference(copy.deepcopy(ours))
        where = f"{head}, 1 image of {size[0]} x {size[1]}"
        detect = _without_gradients(peer, image)
        for name, model, limit in ((where, ours, 0.97), (f"{where}, fused", fused, 0.90)):
            run = _without_gradients(model, image)
            yield compare_seconds(name, run, detect, options, limit=limit)
        x = ours.preprocess_image(image).tensor
        extract = _without_gradients(peer.backbone, x)
        for name, model in ((f"{head}, backbone", ours), (f"{head}, backbone, fused", fused)):
            yield compare_seconds(name, _without_gradients(model.backbone, x), extract, options)


def _without_gradients(model: nn.Module, inputs: list[dict] | torch.Tensor) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        model(inputs)

    return run


def build_pair(head: str, options: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """Ours and detectron2's with FrozenBN, randomly initialized, in training mode."""
    config = _config(f"resnet50_{head}", options)
    config.MODEL.BACKBONE.NAME, config.MODEL.ROI_HEADS.NAME = _DETECTRON2[head]
    peer = _build(config)
    _keep_finite(peer)
    return build_detector(head, options), peer


def build_detector(head: str, options: argparse.Namespace, *opts: str) -> nn.Module:
    """Mask R-CNN on R-ISONet-50, randomly initialized, in training mode."""
    return _build(_config(f"risonet50_{head}", options, *opts))


def _config(name: str, options: argparse.Namespace, *opts: str) -> CfgNode:
    opts = (*opts, "MODEL.WEIGHTS", "", "MODEL.DEVICE", options.device)
    return load_config(f"configs/{name}.yaml", list(opts))


def _build(config: CfgNode) -> nn.Module:
    torch.manual_seed(0)
    return build_model(config).train()


def _keep_finite(resnet: nn.Module) -> None:
    """Scale down the residual branches: without statistics each block doubles the signal."""
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
