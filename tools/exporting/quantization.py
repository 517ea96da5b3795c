"""An ONNX file's convolutions in int8, by ONNX Runtime's static quantization."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from .quiet import quiet


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
