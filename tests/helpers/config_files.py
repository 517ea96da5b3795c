"""The yaml files by kind, and what each becomes: configuration, model, shapes."""

import functools
import re
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from repository import REPOSITORY

from d2_isonet.config.loading import load_config
from d2_isonet.modeling.stages import STAGES

CONFIGS = REPOSITORY / "configs"
LEAVES = sorted(p for p in CONFIGS.rglob("*.yaml") if not p.name.startswith("Base"))
DETECTION = [p for p in LEAVES if p.parent == CONFIGS]
IMAGENET = [p for p in LEAVES if p.parent.name == "imagenet"]
CIFAR = [p for p in LEAVES if p.parent.name == "cifar"]
DECOUPLED_RECIPE = [p for p in IMAGENET if p.stem.startswith(("decoupled", "modified"))]
ISONET_RECIPE = [p for p in IMAGENET if p not in DECOUPLED_RECIPE]
DEPTHS = (18, 34, 50, 101)


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda p: str(p.relative_to(CONFIGS))[:-5])


def name_and_depth(path: Path) -> tuple[str, int]:
    """("isonet_relu", 34) of isonet34_relu.yaml."""
    depth = re.search(r"\d+", path.stem)[0]
    return path.stem.replace(depth, "", 1), int(depth)


@functools.cache
def config(path: Path):
    cfg = load_config(str(path), ["MODEL.DEVICE", "meta"])
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        cfg.MODEL.CLASSIFIER.NUM_CLASSES = 10
    cfg.freeze()
    return cfg


@functools.cache
def model(path: Path):
    with torch.device("meta"):
        return build_model(config(path))


def backbone_shapes(path: Path) -> dict[str, tuple]:
    """Shapes by name from the stage on, also of C4's res5 and below an FPN."""
    shapes = {}
    for name, tensor in model(path).state_dict().items():
        parts = name.split(".")
        stage = next((i for i, part in enumerate(parts) if part in STAGES), None)
        if stage is not None and not name.endswith("num_batches_tracked"):
            shapes[".".join(parts[stage:])] = tuple(tensor.shape)
    return shapes
