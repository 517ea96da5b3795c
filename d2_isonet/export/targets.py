"""The parts of a network that can be exported, in which formats, and as which functions."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.backbone import Backbone
from torch import nn

from d2_isonet.config.options import check_name, value_of
from d2_isonet.modeling.classifier import ImageClassifier
from d2_isonet.utils.command_line import require_packages
from d2_isonet.utils.messages import UserError

TARGETS = ("detector", "backbone", "classifier")
SUFFIXES = {"pt2": ".pt2", "onnx": ".onnx", "torchscript": ".ts"}
DETECTIONS = ("boxes", "classes", "scores", "masks")  # the outputs of a detector, in this order
_EXPORTED = {"pt2": ("float32", "float16", "bfloat16"), "onnx": ("float32", "float16", "int8")}
PRECISIONS = {  # target -> format -> precisions
    "detector": {"onnx": _EXPORTED["onnx"], "torchscript": _EXPORTED["pt2"]},
    "backbone": _EXPORTED,
    "classifier": _EXPORTED,
}
_WHY_NOT = {
    ("detector", "pt2"): "torch.export takes no model whose shapes depend on the objects it finds",
    ("backbone", "torchscript"): "torch.export has replaced it",
    ("classifier", "torchscript"): "torch.export has replaced it",
    ("onnx", "bfloat16"): "ONNX Runtime has no bfloat16 convolution for CPUs",
    ("pt2", "int8"): "PyTorch's int8 needs another package and has no CPU kernels for our layers",
    ("torchscript", "int8"): "PyTorch's int8 takes no traced model",
}
_META_ARCHITECTURES = {"detector": "GeneralizedRCNN", "classifier": "ImageClassifier"}
_HEADS = ("ISONetRes5ROIHeads", "Res5ROIHeads", "StandardROIHeads", "CascadeROIHeads")
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def choose_target(cfg: CfgNode, target: str | None) -> str:
    """`target`, or if it is None, what the config describes.

    Raises:
        UserError: the config describes something else, or nothing that can be exported whole.
    """
    architecture = cfg.MODEL.META_ARCHITECTURE
    kinds = {name: kind for kind, name in _META_ARCHITECTURES.items()}
    if target is None and architecture not in kinds:
        what = f"MODEL.META_ARCHITECTURE is {architecture!r}, which cannot be exported whole"
        can = f"only {' and '.join(map(repr, kinds))} can"
        raise UserError(what, f"{can}. --target backbone exports its backbone")
    target = target or kinds[architecture]
    if target != "backbone" and kinds.get(architecture) != target:
        what = f"--target {target} needs MODEL.META_ARCHITECTURE {_META_ARCHITECTURES[target]!r}"
        raise UserError(what, f"it is {architecture!r}. --target backbone takes any")
    if target == "detector":
        check_name("MODEL.ROI_HEADS.NAME (of --target detector)", cfg.MODEL.ROI_HEADS.NAME, _HEADS)
        for key, legal in (("MODEL.PROPOSAL_GENERATOR.NAME", "RPN"), ("MODEL.KEYPOINT_ON", False)):
            if value_of(cfg, key) != legal:
                remedy = f"--target detector takes {legal!r} only, --target backbone any"
                raise UserError(f"{key} is {value_of(cfg, key)!r}", remedy)
    return target


def check_format(target: str, file_format: str, precision: str, heads: str = "") -> None:
    """Raise UserError if no library writes `target` in this way, or if it is not installed.

    `heads` is MODEL.ROI_HEADS.NAME.
    """
    formats: Mapping[str, tuple[str, ...]] = PRECISIONS[target]
    for option, of, value, choices in (
        ("--target {} --format {}", target, file_format, [*formats]),
        ("--format {} --precision {}", file_format, precision, formats.get(file_format, ())),
    ):
        if value not in choices:
            what = f"{option.format(of, value)} cannot be done ({_WHY_NOT[of, value]})"
            raise UserError(what, f"it can be {' or '.join(choices)}")
    if file_format == "onnx":
        require_packages(*_PACKAGES, needed_by="--format onnx")
    if (target, file_format, heads) == ("detector", "torchscript", "CascadeROIHeads"):
        why = "which detectron2 writes with a function of Python that TorchScript cannot hold"
        raise UserError(f"MODEL.ROI_HEADS.NAME is {heads!r}, {why}", "--format can be onnx")


class PixelFeatures(nn.Module):
    """Backbone features {name: (N, C, H', W')} of images (N, 3, H, W), range 0-255.

    It normalizes the images. If the backbone is a pyramid, it also pads them, with the mean, to a
    multiple of size_divisibility, as a detector does.

    Args:
        model: a meta-architecture, or anything else with backbone, pixel_mean and pixel_std.
    """

    backbone: Backbone
    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(self, model: Any):
        super().__init__()
        self.backbone = model.backbone
        self.output_names = list(model.backbone.output_shape())
        self.register_buffer("pixel_mean", model.pixel_mean, False)
        self.register_buffer("pixel_std", model.pixel_std, False)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        x = (images - self.pixel_mean) / self.pixel_std
        multiple = self.backbone.size_divisibility
        if multiple > 1:
            height, width = x.shape[-2:]
            # torch.export cannot solve -width % multiple
            right = (width + multiple - 1) // multiple * multiple - width
            below = (height + multiple - 1) // multiple * multiple - height
            x = F.pad(x, [0, right, 0, below])
        return self.backbone(x)


class PixelLogits(nn.Module):
    """{"logits": (N, classes)} of images (N, 3, H, W), range 0-255, which it normalizes."""

    def __init__(self, model: ImageClassifier):
        super().__init__()
        self.model, self.backbone = model, model.backbone
        self.output_names = ["logits"]

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.model.pixel_logits(images)}


def pixel_module(model: Any, target: str) -> PixelFeatures | PixelLogits:
    """The module that torch.export takes for a backbone or a classifier."""
    return (PixelLogits if target == "classifier" else PixelFeatures)(model).eval()


def detections(model: GeneralizedRCNN, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The objects that a detector finds in an image (3, H, W), in the order of DETECTIONS.

    Boxes (R, 4) as x0, y0, x1, y1 in pixels of that image, classes (R,), scores (R,). A detector
    with masks adds probabilities (R, M, M) inside each box, not pasted into the image.
    """
    found = model.inference([{"image": image}], do_postprocess=False)[0]
    outputs = (found.pred_boxes.tensor, found.pred_classes, found.scores)
    return (*outputs, found.pred_masks[:, 0]) if found.has("pred_masks") else outputs


def detector_outputs(model: GeneralizedRCNN) -> list[str]:
    """The names of the tensors that `detections` returns."""
    return list(DETECTIONS if model.roi_heads.mask_on else DETECTIONS[:3])


def function_of(model: Any, target: str) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
    """The original with the interface of its export: an image (3, H, W), 0-255, to named tensors.

    Args:
        model: the meta-architecture.
    """
    if target != "detector":
        module = pixel_module(model, target)
        return torch.no_grad()(lambda image: module(image[None]))
    names = detector_outputs(model)
    return torch.no_grad()(lambda image: dict(zip(names, detections(model, image), strict=True)))
