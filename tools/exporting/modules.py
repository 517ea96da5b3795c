"""The functions that are exported: tensors to tensors, of pixels of range 0-255."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from detectron2.modeling.backbone import Backbone
from torch import nn

DETECTIONS = ("boxes", "classes", "scores", "masks")


class PixelFeatures(nn.Module):
    """Features {name: (N, C, H', W')} of images (N, 3, H, W); mean, std and padding are inside.

    A pyramid's images are padded with the mean to a multiple of its size_divisibility, as in a
    detector.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone = model.backbone
        self.register_buffer("pixel_mean", model.pixel_mean)
        self.register_buffer("pixel_std", model.pixel_std)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        x = (images - self.pixel_mean) / self.pixel_std
        multiple = self.backbone.size_divisibility
        if multiple > 1:
            height, width = x.shape[-2:]
            right = (width + multiple - 1) // multiple * multiple - width
            below = (height + multiple - 1) // multiple * multiple - height
            x = F.pad(x, [0, right, 0, below])
        return self.backbone(x)

    def output_names(self) -> list[str]:
        return list(self.backbone.output_shape())


class PixelLogits(nn.Module):
    """{"logits": (N, classes)} of images (N, 3, H, W); mean and std are inside."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.backbone = model.backbone

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.model.pixel_logits(images)}

    def output_names(self) -> list[str]:
        return ["logits"]


def detections(model: nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What a detector finds in an image (3, H, W), in the order of DETECTIONS.

    Boxes (R, 4) as x0, y0, x1, y1 in pixels of that image, classes (R,), scores (R,), and of a
    detector with masks the probabilities (R, M, M) inside of each box, not pasted into the image.
    """
    found = model.inference([{"image": image}], do_postprocess=False)[0]
    outputs = (found.pred_boxes.tensor, found.pred_classes, found.scores)
    return (*outputs, found.pred_masks[:, 0]) if found.has("pred_masks") else outputs


def detector_outputs(model: nn.Module) -> list[str]:
    """The names of what `detections` returns."""
    heads = model.roi_heads
    return list(DETECTIONS if heads.mask_on else DETECTIONS[:3])


def function_of(model: nn.Module, target: str) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
    """The model as what its export is: an image (3, H, W), 0-255, to tensors by name."""
    if target != "detector":
        module = pixel_module(model, target)
        return torch.no_grad()(lambda image: module(image[None]))
    names = detector_outputs(model)
    return torch.no_grad()(lambda image: dict(zip(names, detections(model, image), strict=True)))


def smallest_side(backbone: Backbone) -> int:
    """Pixels that an image must have: torch.export takes a map of height or width 1 for fixed."""
    return max(shape.stride for shape in backbone.output_shape().values()) + 1


def pixel_module(model: nn.Module, target: str) -> PixelFeatures | PixelLogits:
    """What torch.export is given."""
    return (PixelLogits if target == "classifier" else PixelFeatures)(model).eval()
