"""Whole detectors by tracing: TorchScript, and the ONNX exporter that takes traces."""

import json
from pathlib import Path

import torch
from torch import nn

from d2_isonet.utils.compat import tracing_adapter

from .dynamic import RECORD
from .modules import detections, detector_outputs
from .quiet import quiet

OPSET = 17  # the newest that this exporter writes; RoiAlign as detectron2's came with 16


def write_torchscript(model: nn.Module, example: torch.Tensor, path: Path, record: dict) -> None:
    """Write a .ts file with its record in it; `example` is an image (3, H, W), 0-255."""
    adapter = tracing_adapter(model, example, detections)
    with torch.no_grad(), quiet():
        # what it finds in noise may differ in the order of equal scores; we compare ourselves
        traced = torch.jit.trace(adapter, (example,), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={RECORD: json.dumps(record)})


def write_onnx(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write an .onnx file; height, width and the number of detections are left open."""
    names = detector_outputs(model)
    sizes = {"image": {1: "height", 2: "width"}, **{name: {0: "detections"} for name in names}}
    adapter = tracing_adapter(model, example, detections)
    with torch.no_grad(), quiet():
        torch.onnx.export(
            adapter,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=names,
            dynamic_axes=sizes,
        )
