"""A writer for each format: torch.export and tracing, to .pt2, .onnx and .ts files."""

import contextlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from d2_isonet.utils.compat import tracing_adapter

from .record import attach
from .targets import PixelFeatures, PixelLogits, detections, detector_outputs, pixel_module

RECORD = "record.json"  # name of the record inside a .pt2 or .ts file
OPSET = 17  # the newest that the tracing exporter writes; detectron2's RoiAlign needs 16


def write_export(model: nn.Module, record: dict, images: list[torch.Tensor], path: Path) -> None:
    """Write the file that `record` describes, and the record.

    Args:
        images: (3, H, W), range 0-255. The first one is traced, all calibrate int8.
    """
    target, file_format = record["target"], record["format"]
    if file_format == "torchscript":
        write_torchscript(model, images[0], path, record)
    elif target == "detector":
        _write_traced_onnx(model, images[0], path)
    elif file_format == "pt2":
        program = export_program(pixel_module(model, target))
        torch.export.save(program, path, extra_files={RECORD: json.dumps(record)})
    else:
        _write_onnx(pixel_module(model, target), path)
    if record["precision"] == "int8":
        _quantize(path, images, target)
    attach(path, record)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, no log lines below errors."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def export_program(module: PixelFeatures | PixelLogits) -> ExportedProgram:
    """`module` as a program for any number and size of images."""
    # with channels_last, torch.export needs facts about padded sizes that it cannot prove
    module = module.to(memory_format=torch.contiguous_format)
    side, sizes = _open_sizes(module)
    # torch.export takes equal sizes for one dimension, and a size of 1 for a constant
    example = torch.full((2, 3, 2 * side, 3 * side), 128.0)
    with torch.no_grad(), quiet():
        return torch.export.export(module, (example,), dynamic_shapes=sizes)


def _open_sizes(module: PixelFeatures | PixelLogits) -> tuple[int, tuple[dict[int, Dim]]]:
    """The least side of an image, whose features are larger than 1, and what varies in a batch."""
    side = max(shape.stride for shape in module.backbone.output_shape().values()) + 1
    return side, ({0: Dim("batch"), 2: Dim("height", min=side), 3: Dim("width", min=side)},)


def _write_onnx(module: PixelFeatures | PixelLogits, path: Path) -> None:
    program = export_program(module)
    with quiet():
        onnx_program = torch.onnx.export(
            program, dynamo=True, dynamic_shapes=_open_sizes(module)[1], input_names=["images"],
            output_names=module.output_names, verbose=False,
        )  # fmt: skip
        assert onnx_program is not None  # it is None only without dynamo
        onnx_program.save(path)


def write_torchscript(model: nn.Module, example: torch.Tensor, path: Path, record: dict) -> None:
    """Write a detector, traced on an image (3, H, W) of 0-255, to a .ts file with its record."""
    adapter = tracing_adapter(model, example, detections)
    with torch.no_grad(), quiet():
        # the built-in check fails if equal scores swap places; export_and_compare compares instead
        traced = torch.jit.trace(adapter, (example,), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={RECORD: json.dumps(record)})


def _write_traced_onnx(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write a detector for any height, width and number of detections."""
    names = detector_outputs(model)
    sizes = {"image": {1: "height", 2: "width"}, **{name: {0: "detections"} for name in names}}
    adapter = tracing_adapter(model, example, detections)
    with torch.no_grad(), quiet():
        torch.onnx.export(
            adapter, (example,), str(path), dynamo=False, opset_version=OPSET,
            input_names=["image"], output_names=names, dynamic_axes=sizes,
        )  # fmt: skip


def _quantize(path: Path, images: Iterable[torch.Tensor], target: str) -> None:
    """Replace an .onnx file by one whose convolutions multiply int8 weights and uint8 maps.

    In a detector, only the backbone is quantized: the heads place the boxes, and see too few
    regions, or none, to measure ranges. The maps of `images` (3, H, W) of 0-255 give the ranges.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, quiet():
        simpler = Path(folder) / "simpler.onnx"
        _fold_constants(path, simpler)
        graph = onnx.load(str(simpler)).graph
        is_detector, name = target == "detector", graph.input[0].name
        feeds = ({name: (x if is_detector else x[None]).numpy()} for x in images)
        prefix = "/backbone/" if is_detector else ""
        names = [n.name for n in graph.node if n.op_type == "Conv" and n.name.startswith(prefix)]
        reader = SimpleNamespace(get_next=lambda: next(feeds, None))  # a CalibrationDataReader
        quantize_static(
            simpler, path, reader, op_types_to_quantize=["Conv"], nodes_to_quantize=names,
            per_channel=True, weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
        )  # fmt: skip


def _fold_constants(path: Path, simpler: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(simpler)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
