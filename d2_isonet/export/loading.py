"""The original network from its weights, the variant to export, and the exported file."""

import contextlib
import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.backbone import Backbone
from torch import nn

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.modeling.execution import run_plainly
from d2_isonet.modeling.fusion import fuse_for_inference
from d2_isonet.preflight.network import check_names
from d2_isonet.utils.messages import UserError

from .formats import quiet
from .targets import PixelFeatures


def load_model(
    cfg: CfgNode, target: str, weights: str, trust_pickle: bool = False
) -> tuple[nn.Module, Mapping | None]:
    """The model of `cfg` on the CPU, and the record of its weights.

    For the target "backbone", the model is only the backbone and its pixels.

    A backbone can come from a backbone.pth, a classifier or a detector, if the file contains all
    its tensors, including those of a pyramid.

    Raises:
        UserError: there are no weights, or some tensors of the network are missing.
        FileNotFoundError: there is no such file.
    """
    if not weights:
        raise UserError(
            "there are no weights to export",
            "give --weights FILE (the model_final.pth of a training; a backbone.pth does for "
            "--target backbone)",
        )
    cfg = run_plainly(cfg)
    check_names(cfg)
    model = build_model(cfg).eval()
    if target == "backbone":
        model = PixelFeatures(model)
    checkpointer = build_checkpointer(cfg, model, strict=True, trust_pickle=trust_pickle)
    # for a backbone, fvcore would warn about the unused heads in a detector's file
    with quiet() if target == "backbone" else contextlib.nullcontext():
        checkpointer.load(weights, [])
    return model.requires_grad_(False).eval(), checkpointer.record


def variant(model: nn.Module, fuse: str, precision: str) -> tuple[nn.Module, bool]:
    """A copy of the model to export, and whether SReLU's shifts are folded into its biases.

    Args:
        fuse: "on", "off", or "auto": only if that is exact.
        precision: "float16" and "bfloat16" convert the backbone. For "int8" the exported file is
            quantized instead.

    Raises:
        UserError: fuse is "on", and the network has no shifts to fold.
    """
    model, fused = copy.deepcopy(model), False
    if fuse != "off":
        try:
            model, fused = fuse_for_inference(copy.deepcopy(model)), True
        except UserError as error:
            if fuse == "on":
                line = " ".join(str(error).split())
                raise UserError(f"--fuse on: {line}", "--fuse auto leaves it as it is") from error
    if precision in ("float16", "bfloat16"):
        model.backbone = HalfBackbone(model.backbone, getattr(torch, precision))
    return model.eval(), fused


class HalfBackbone(Backbone):
    """`backbone` in half precision, between float32 images and float32 features.

    The heads stay in float32, because half precision is too coarse for box coordinates: the next
    number after 1333 is 1 (float16) or 8 (bfloat16) away.
    """

    def __init__(self, backbone: Backbone, dtype: torch.dtype):
        super().__init__()
        self.backbone, self.dtype = backbone.to(dtype), dtype

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: y.float() for name, y in self.backbone(x.to(self.dtype)).items()}

    @property
    def size_divisibility(self) -> int:
        return self.backbone.size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:  # detectron2 v0.6 has none
        return self.backbone.padding_constraints

    def output_shape(self) -> dict:
        return self.backbone.output_shape()


Function = Callable[[torch.Tensor], dict[str, torch.Tensor]]


def load_exported(path: Path, record: dict) -> Function:
    """The file as a function from an image (3, H, W), range 0-255, to named tensors.

    Args:
        record: the record of the export, which names its format and outputs (see record.py).
    """
    if record["format"] == "onnx":
        return _load_onnx(path, record)
    if record["format"] == "pt2":
        program = torch.export.load(str(path)).module()
        return torch.no_grad()(lambda image: program(image[None]))
    traced, names = torch.jit.load(str(path)), [output["name"] for output in record["outputs"]]
    return torch.no_grad()(lambda image: dict(zip(names, traced(image), strict=True)))


def _load_onnx(path: Path, record: dict) -> Function:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # like the original
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names, image_name = [o.name for o in session.get_outputs()], session.get_inputs()[0].name

    def run(image: torch.Tensor) -> dict[str, torch.Tensor]:
        image = image if record["target"] == "detector" else image[None]
        outputs = session.run(None, {image_name: image.numpy()})
        return dict(zip(names, map(torch.from_numpy, outputs), strict=True))

    return run
