"""Backbones and classifiers by torch.export, for any number and size of images."""

import json
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from exporting.modules import PixelFeatures, PixelLogits
from exporting.quiet import quiet

RECORD = "d2_isonet.json"  # the record's name in a .pt2 and a .ts file


def export_program(module: PixelFeatures | PixelLogits, example: torch.Tensor) -> ExportedProgram:
    """`module` of images (N, 3, H, W) with N, H and W left open.

    Args:
        example: two images or more; torch.export takes a size of 1 for fixed.
    """
    with torch.no_grad(), quiet():
        return torch.export.export(module, (example,), dynamic_shapes=_open_sizes(module))


def _open_sizes(module: PixelFeatures | PixelLogits) -> tuple[dict[int, Dim]]:
    side = module.smallest_side()
    return ({0: Dim("batch"), 2: Dim("height", min=side), 3: Dim("width", min=side)},)


def write_program(
    module: PixelFeatures | PixelLogits, example: torch.Tensor, path: Path, record: dict
) -> None:
    """Write a .pt2 file with its record in it."""
    program = export_program(module, example)
    torch.export.save(program, path, extra_files={RECORD: json.dumps(record)})


def write_onnx(module: PixelFeatures | PixelLogits, example: torch.Tensor, path: Path) -> None:
    """Write an .onnx file, by way of torch.export; the sizes keep their names."""
    program = export_program(module, example)
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
