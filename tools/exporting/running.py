"""An exported file as a function again, by what users would run it with."""

from collections.abc import Callable
from pathlib import Path

import torch

Function = Callable[[torch.Tensor], dict[str, torch.Tensor]]


def load_exported(path: Path, record: dict) -> Function:
    """The file as a function of an image (3, H, W), 0-255, to tensors by name.

    Args:
        record: of the export (see record.py); it names the format and the outputs.
    """
    load = {"onnx": _load_onnx, "pt2": _load_program, "torchscript": _load_torchscript}
    return load[record["format"]](path, record)


def _load_onnx(path: Path, record: dict) -> Function:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # as many as the original
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names, image_name = [o.name for o in session.get_outputs()], session.get_inputs()[0].name

    def run(image: torch.Tensor) -> dict[str, torch.Tensor]:
        image = image if record["target"] == "detector" else image[None]
        outputs = session.run(None, {image_name: image.numpy()})
        return dict(zip(names, map(torch.from_numpy, outputs), strict=True))

    return run


def _load_program(path: Path, record: dict) -> Function:
    module = torch.export.load(str(path)).module()
    return torch.no_grad()(lambda image: module(image[None]))


def _load_torchscript(path: Path, record: dict) -> Function:
    module, names = torch.jit.load(str(path)), [output["name"] for output in record["outputs"]]
    return torch.no_grad()(lambda image: dict(zip(names, module(image), strict=True)))
