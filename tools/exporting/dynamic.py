"""Backbones and classifiers by torch.export, for any number and size of images."""

import json
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from .modules import PixelFeatures, PixelLogits, smallest_side
from .quiet import quiet

RECORD = "record.json"  # the record's name in a .pt2 and a .ts file


def export_program(module: PixelFeatures | PixelLogits) -> ExportedProgram:
    """`module` of images (N, 3, H, W) with N, H and W left open."""
    # with channels last torch.export asks of padded sizes what it cannot prove
    module = module.to(memory_format=torch.contiguous_format)
    with torch.no_grad(), quiet():
        return torch.export.export(module, (_example(module),), dynamic_shapes=_open_sizes(module))


def _example(module: PixelFeatures | PixelLogits) -> torch.Tensor:
    """Sizes that differ and are not 1: torch.export takes equal ones for one, and 1 for fixed."""
    side = smallest_side(module.backbone)
    return torch.full((2, 3, 2 * side, 3 * side), 128.0)


def _open_sizes(module: PixelFeatures | PixelLogits) -> tuple[dict[int, Dim]]:
    side = smallest_side(module.backbone)
    return ({0: Dim("batch"), 2: Dim("height", min=side), 3: Dim("width", min=side)},)


def write_program(module: PixelFeatures | PixelLogits, path: Path, record: dict) -> None:
    """Write a .pt2 file with its record in it."""
    program = export_program(module)
    torch.export.save(program, path, extra_files={RECORD: json.dumps(record)})


def write_onnx(module: PixelFeatures | PixelLogits, path: Path) -> None:
    """Write an .onnx file, by way of torch.export; the sizes keep their names."""
    program = export_program(module)
    with quiet():
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            dynamic_shapes=_open_sizes(module),
            input_names=["images"],
            output_names=module.output_names(),
            verbose=False,
        )
        onnx_program.save(path)
