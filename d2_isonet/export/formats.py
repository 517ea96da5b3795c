"""Backbones and classifiers by torch.export, for any number and size of images."""

import contextlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from d2_isonet.utils.compat import tracing_adapter

from .targets import PixelFeatures, PixelLogits, detections, detector_outputs, smallest_side


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


def quantize(path: Path, images: Iterable[torch.Tensor], target: str) -> None:
    """Replace the file by one whose convolutions multiply int8 weights and uint8 maps.

    Of a detector those of its backbone: the heads see few regions, or none, of which there is no
    range to take, and they place the boxes.

    Args:
        images: (3, H, W), range 0-255, whose maps give the ranges.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, quiet():
        simpler = Path(folder) / "simpler.onnx"
        _fold_constants(path, simpler)
        graph = onnx.load(str(simpler)).graph
        prefix = "/backbone/" if target == "detector" else ""
        names = [n.name for n in graph.node if n.op_type == "Conv" and n.name.startswith(prefix)]
        quantize_static(
            simpler,
            path,
            _calibration_reader(graph.input[0], images),
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=names,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )


def _fold_constants(path: Path, simpler: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(simpler)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _calibration_reader(graph_input, images: Iterable[torch.Tensor]):
    from onnxruntime.quantization import CalibrationDataReader

    batched = len(graph_input.type.tensor_type.shape.dim) == 4

    class Images(CalibrationDataReader):
        def __init__(self):
            self.feeds = iter(_feeds(graph_input.name, images, batched))

        def get_next(self) -> dict | None:
            return next(self.feeds, None)

    return Images()


def _feeds(name: str, images: Iterable[torch.Tensor], batched: bool) -> Iterator[dict]:
    for image in images:
        yield {name: (image[None] if batched else image).numpy()}


OPSET = 17  # the newest that this exporter writes; RoiAlign as detectron2's came with 16


def write_torchscript(model: nn.Module, example: torch.Tensor, path: Path, record: dict) -> None:
    """Write a .ts file with its record in it; `example` is an image (3, H, W), 0-255."""
    adapter = tracing_adapter(model, example, detections)
    with torch.no_grad(), quiet():
        # what it finds in noise may differ in the order of equal scores; we compare ourselves
        traced = torch.jit.trace(adapter, (example,), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={RECORD: json.dumps(record)})


def write_traced_onnx(model: nn.Module, example: torch.Tensor, path: Path) -> None:
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
