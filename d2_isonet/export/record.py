"""What a user of an export must know, beside it as json and inside of it."""

import json
from importlib import metadata
from pathlib import Path

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import nn

from d2_isonet import __version__
from d2_isonet.checkpoint.checkpointer import describe
from d2_isonet.data.coco_json import class_names, read_annotations
from d2_isonet.utils.files import write_text
from d2_isonet.utils.messages import MissingFileError, UserError

from .targets import detector_outputs, pixel_module

FORMAT_VERSION = 1
KEY = "d2_isonet"  # of the record in an ONNX file's metadata_props
_MEANINGS = {
    "boxes": ("(R, 4)", "x0, y0, x1, y1 in pixels of the image given"),
    "classes": ("(R,)", "index into class_names"),
    "scores": ("(R,)", "probability, falling"),
    "masks": ("(R, M, M)", "probability inside of the box, to be resized to it; object above 0.5"),
    "logits": ("(N, classes)", "softmax gives probabilities; index into class_names"),
}


def make_record(cfg: CfgNode, model: nn.Module, target: str, names: list[str], **facts) -> dict:
    """The record of an export of `model`; plain types only, no path of this machine.

    Args:
        names: of the classes, in the order of their indices.
        facts: "format", "precision", "fused", "weights".
    """
    pixels = describe(cfg)
    is_detector = target == "detector"
    outputs = detector_outputs(model) if is_detector else pixel_module(model, target).output_names()
    record = {
        "format_version": FORMAT_VERSION,
        "target": target,
        **facts,
        "input": {
            "name": "image" if is_detector else "images",
            "shape": ["3", "H", "W"] if is_detector else ["N", "3", "H", "W"],
            "dtype": "float32",
            "range": [0, 255],
            "channel_order": pixels["input"]["format"],
            "normalization": "inside: do not subtract the mean",
            "pixel_mean": pixels["input"]["pixel_mean"],
            "pixel_std": pixels["input"]["pixel_std"],
        },
        "resize": _resize_rule(cfg),
        "outputs": [_output(name, model) for name in outputs],
        "class_names": names,
        "architecture": pixels["architecture"],
        "versions": _versions(),
    }
    if is_detector:
        record["score_threshold"] = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
        record["detections_per_image"] = cfg.TEST.DETECTIONS_PER_IMAGE
    return record


def _resize_rule(cfg: CfgNode) -> dict:
    """How an image is resized before; bilinear with antialiasing, as Pillow does."""
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        options = cfg.INPUT.CLASSIFICATION
        return {"shorter_side": options.RESIZE, "center_crop": options.CROP_SIZE}
    return {"shorter_side": cfg.INPUT.MIN_SIZE_TEST, "longer_side_at_most": cfg.INPUT.MAX_SIZE_TEST}


def _output(name: str, model: nn.Module) -> dict:
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
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def find_class_names(cfg: CfgNode, target: str, file: str | None) -> tuple[list[str], str]:
    """The names of the classes in order, and where they come from.

    Args:
        file: a COCO json, or a text file with a name a line; None for what detectron2 knows of
            the data sets of `cfg`.

    Raises:
        UserError: the file has another number of classes than the network.
        FileNotFoundError: there is no such file.
    """
    if target == "backbone":
        return [], "a backbone has none"
    number = num_classes(cfg, target)
    if file:
        names = read_class_names(file)
        if len(names) != number:
            raise UserError(f"--class-names: {file} has {len(names)} names, the network {number}")
        return names, file
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        known = MetadataCatalog.get(dataset)
        names = known.get("thing_classes" if target == "detector" else "classes") or []
        if len(names) == number:
            return list(names), f"data set {dataset}"
    return [f"class {i}" for i in range(number)], "NONE KNOWN, numbered: give --class-names FILE"


def num_classes(cfg: CfgNode, target: str) -> int:
    classifier, heads = cfg.MODEL.CLASSIFIER, cfg.MODEL.ROI_HEADS
    return (heads if target == "detector" else classifier).NUM_CLASSES


def read_class_names(file: str) -> list[str]:
    """Of a COCO json in the order of its ids, or the lines of a text file."""
    if file.endswith(".json"):
        return class_names(read_annotations(file))
    if not Path(file).is_file():
        raise MissingFileError(f"--class-names: there is no file {Path(file).absolute()}")
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def attach(path: Path, record: dict) -> None:
    """Put the record into an ONNX file's metadata_props, and beside any file as json."""
    if path.suffix == ".onnx":
        import onnx

        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, {KEY: json.dumps(record)})
        onnx.save(model, str(path))
    write_text(path.with_name(f"{path.name}.json"), json.dumps(record, indent=1) + "\n")
