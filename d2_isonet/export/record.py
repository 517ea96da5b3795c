"""The record of an export: how to feed it and read its outputs, in the file and as json."""

import contextlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode

from d2_isonet import __version__
from d2_isonet.checkpoint.checkpointer import describe
from d2_isonet.data.categories import categories_of, check_named_classes
from d2_isonet.data.coco_json import class_names, read_annotations
from d2_isonet.utils.files import MOST_RECORD_BYTES, read_regular, write_text
from d2_isonet.utils.messages import MissingFileError

from .targets import detector_outputs, pixel_module

FORMAT_VERSION = 1
KEY = "d2_isonet"  # key of the record in the metadata_props of an ONNX file
_MEANINGS = {
    "boxes": ("(R, 4)", "x0, y0, x1, y1 in pixels of the image given"),
    "classes": ("(R,)", "index into class_names"),
    "scores": ("(R,)", "probability, in falling order"),
    "masks": ("(R, M, M)", "probability inside the box: resize it to the box; object above 0.5"),
    "logits": ("(N, classes)", "softmax gives probabilities; index into class_names"),
}


def make_record(cfg: CfgNode, model: Any, target: str, names: list[str], **facts) -> dict:
    """The record of an export of `model`, of plain types and without paths.

    Args:
        names: the class names by index.
        facts: "format", "precision", "fused", "weights".
    """
    network = describe(cfg)
    pixels = network["input"]
    is_detector = target == "detector"
    outputs = detector_outputs(model) if is_detector else pixel_module(model, target).output_names
    record = {
        "format_version": FORMAT_VERSION,
        "target": target,
        **facts,
        "input": {
            "name": "image" if is_detector else "images",
            "shape": ["3", "H", "W"] if is_detector else ["N", "3", "H", "W"],
            "dtype": "float32",
            "range": [0, 255],
            "channel_order": pixels["format"],
            "normalization": "inside: do not subtract the mean",
            "pixel_mean": pixels["pixel_mean"],
            "pixel_std": pixels["pixel_std"],
        },
        "resize": _resize_rule(cfg),
        "outputs": [_output(name, model) for name in outputs],
        "class_names": names,
        "architecture": network["architecture"],
        "versions": _versions(),
    }
    if is_detector:
        record["score_threshold"] = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
        record["detections_per_image"] = cfg.TEST.DETECTIONS_PER_IMAGE
    return record


def _resize_rule(cfg: CfgNode) -> dict:
    """The size that an image needs; resize it bilinearly with antialiasing, as Pillow does."""
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        options = cfg.INPUT.CLASSIFICATION
        return {"shorter_side": options.RESIZE, "center_crop": options.CROP_SIZE}
    return {"shorter_side": cfg.INPUT.MIN_SIZE_TEST, "longer_side_at_most": cfg.INPUT.MAX_SIZE_TEST}


def _output(name: str, model: Any) -> dict:
    if name in _MEANINGS:
        shape, meaning = _MEANINGS[name]
        return {"name": name, "shape": shape, "meaning": meaning}
    shape = model.backbone.output_shape()[name]
    meaning = f"feature of stride {shape.stride}"
    return {"name": name, "shape": f"(N, {shape.channels}, H', W')", "meaning": meaning}


def _versions() -> dict[str, str]:
    versions = {"d2_isonet": __version__, "torch": torch.__version__}
    versions["detectron2"] = detectron2.__version__  # a checkout has no metadata
    for package in ("torchvision", "onnx", "onnxruntime"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def find_class_names(
    cfg: CfgNode, target: str, file: str | None, record: Mapping | None = None, weights: str = ""
) -> tuple[list[str], str]:
    """The class names by index, and where they come from.

    Args:
        file: a COCO json, or a text file with one name per line. None: the names in the weights
            or, if they have none, those of the datasets of `cfg`.
        record: the meta record of the file `weights`, None if it has none.

    Raises:
        UserError: the file and the weights name different classes.
        FileNotFoundError: there is no such file.
    """
    if target == "backbone":
        return [], "a backbone has none"
    found = categories_of(cfg, record, weights)
    if file:
        names = read_class_names(file)
        check_named_classes(f"--class-names: {file}", names, found, weights)
        return names, file
    if found.source:
        return found.names, found.source
    names = [f"class {i}" for i in range(len(found.names))]
    return names, "NONE KNOWN, numbered: give --class-names FILE"


def read_class_names(file: str) -> list[str]:
    """The categories of a COCO json in the order of their ids, or the lines of a text file."""
    if file.endswith(".json"):
        return class_names(read_annotations(file))
    if not Path(file).exists():
        raise MissingFileError(f"--class-names: there is no file {Path(file).absolute()}")
    lines = read_regular(file, MOST_RECORD_BYTES).decode(errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def attach(path: Path, record: dict) -> None:
    """Write the record as json beside the file, and into the metadata_props of an ONNX file."""
    if path.suffix == ".onnx":
        import onnx

        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, {KEY: json.dumps(record)})
        onnx.save(model, str(path))
    write_text(path.with_name(f"{path.name}.json"), json.dumps(record, indent=1) + "\n")
