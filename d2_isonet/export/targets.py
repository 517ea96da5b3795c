"""What can be exported how; everything else is refused with what can."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling.backbone import Backbone
from torch import nn

from d2_isonet.config.options import check_name
from d2_isonet.utils.command_line import require_packages
from d2_isonet.utils.messages import UserError

TARGETS = ("detector", "backbone", "classifier")
SUFFIXES = {"pt2": ".pt2", "onnx": ".onnx", "torchscript": ".ts"}
_EXPORTED = {"pt2": ("float32", "float16", "bfloat16"), "onnx": ("float32", "float16", "int8")}
PRECISIONS = {  # target -> format -> precisions; the first of each is the default
    "detector": {
        "onnx": ("float32", "float16", "int8"),
        "torchscript": ("float32", "float16", "bfloat16"),
    },
    "backbone": _EXPORTED,
    "classifier": _EXPORTED,
}
_WHY_NOT = {
    ("detector", "pt2"): "torch.export takes no model whose shapes depend on what it finds",
    ("backbone", "torchscript"): "torch.export has replaced it",
    ("classifier", "torchscript"): "torch.export has replaced it",
    ("onnx", "bfloat16"): "ONNX Runtime has no bfloat16 convolution for CPUs",
    ("pt2", "int8"): "PyTorch's int8 needs another package and has no CPU kernels of ours",
    ("torchscript", "int8"): "PyTorch's int8 takes no traced model",
}
_META_ARCHITECTURES = {"detector": "GeneralizedRCNN", "classifier": "ImageClassifier"}
_HEADS = ("ISONetRes5ROIHeads", "Res5ROIHeads", "StandardROIHeads", "CascadeROIHeads")
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def choose_target(cfg: CfgNode, target: str | None) -> str:
    """`target`, or what the config is where none is asked for.

    Raises:
        UserError: the config is none of them, or another than asked for.
    """
    architecture = cfg.MODEL.META_ARCHITECTURE
    kinds = {name: kind for kind, name in _META_ARCHITECTURES.items()}
    if target is None and architecture not in kinds:
        raise UserError(
            f"MODEL.META_ARCHITECTURE is {architecture!r}, which cannot be exported whole",
            f"only {' and '.join(map(repr, kinds))} can. --target backbone exports its backbone",
        )
    target = target or kinds[architecture]
    if target != "backbone" and kinds.get(architecture) != target:
        raise UserError(
            f"--target {target} needs MODEL.META_ARCHITECTURE {_META_ARCHITECTURES[target]!r}",
            f"it is {architecture!r}. --target backbone takes any",
        )
    if target == "detector":
        _check_heads(cfg)
    return target


def _check_heads(cfg: CfgNode) -> None:
    check_name("MODEL.ROI_HEADS.NAME (of --target detector)", cfg.MODEL.ROI_HEADS.NAME, _HEADS)
    asked = {
        "MODEL.PROPOSAL_GENERATOR.NAME": (cfg.MODEL.PROPOSAL_GENERATOR.NAME, "RPN"),
        "MODEL.KEYPOINT_ON": (cfg.MODEL.KEYPOINT_ON, False),
    }
    for key, (value, legal) in asked.items():
        if value != legal:
            raise UserError(
                f"{key} is {value!r}",
                f"--target detector takes {legal!r} only, --target backbone any",
            )


def check_format(target: str, file_format: str, precision: str) -> None:
    """Raise ValueError where no library writes `target` that way, or it is not installed."""
    formats = PRECISIONS[target]
    if file_format not in formats:
        raise _refusal(f"--target {target} --format", file_format, tuple(formats), target)
    if precision not in formats[file_format]:
        option = f"--format {file_format} --precision"
        raise _refusal(option, precision, formats[file_format], file_format)
    if file_format == "onnx":
        require_packages(*_PACKAGES, needed_by="--format onnx")


def check_traceable(cfg: CfgNode, target: str, file_format: str) -> None:
    """Raise ValueError for the one detector that only ONNX takes."""
    is_cascade = cfg.MODEL.ROI_HEADS.NAME == "CascadeROIHeads"
    if is_cascade and (target, file_format) == ("detector", "torchscript"):
        raise UserError(
            "MODEL.ROI_HEADS.NAME is 'CascadeROIHeads', which detectron2 writes with a function of "
            "Python that TorchScript cannot hold",
            "--format can be onnx",
        )


def _refusal(option: str, value: str, choices: tuple[str, ...], of: str) -> ValueError:
    why = _WHY_NOT[of, value]
    return UserError(
        f"{option} {value} cannot be done ({why})",
        f"it can be {' or '.join(choices)}",
    )


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
