"""The yaml files and the networks by kind, and what each becomes: configuration, model, shapes."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from repository import REPOSITORY
from reproduction.papers import IMAGENET as OF_TABLES
from reproduction.papers import cnn9, imagenet_network

from d2_isonet.config.loading import load_config
from d2_isonet.modeling.stages import STAGES

CONFIGS = REPOSITORY / "configs"
LEAVES = sorted(p for p in CONFIGS.rglob("*.yaml") if not p.name.startswith("Base"))
DETECTION = [p for p in LEAVES if p.parent == CONFIGS]


@dataclass(frozen=True)
class Variant:
    """A network without a yaml of its own: the file of another one, and options on top."""

    stem: str
    file: Path
    opts: tuple[str, ...]


def _cifar(stem: str, leaf: str, *opts: str) -> Variant:
    return Variant(stem, CONFIGS / "cifar" / f"{leaf}.yaml", opts)


OPERATORS = ("baseline", "sphere", "ball", "tanh", "linear", "seg", "log", "mix")
_CNN9 = {
    f"cnn9_{o}{x}": cnn9(f"cnn9_{o}{x}") for o in OPERATORS for x in ("", "_no_bn", "_no_relu")
}
# in no table, but the yaml says that these options give them
_MAGNITUDE, _DEPTH = "MODEL.DECOUPLED.MAGNITUDE", "MODEL.RESNETS.DEPTH"
_NO_BN = "MODEL.RESNETS.NORM="
_UNLISTED = {
    "decoupled18_baseline_no_bn": ("decoupled18_baseline", (_NO_BN,)),
    "decoupled18_sphere_no_bn": ("decoupled18_tanh_no_bn", (f"{_MAGNITUDE}=Sphere",)),
    "decoupled18_linear_no_bn": ("decoupled18_tanh_no_bn", (f"{_MAGNITUDE}=Linear",)),
}
_VARIANTS = {
    "imagenet": [
        *(
            Variant(n, REPOSITORY / imagenet_network(n)[0], opts)
            for n, (_, opts) in OF_TABLES.items()
        ),
        *(Variant(n, CONFIGS / f"imagenet/{f}.yaml", opts) for n, (f, opts) in _UNLISTED.items()),
    ],
    "cifar": [
        *(Variant(name, REPOSITORY / file, opts) for name, (file, opts) in _CNN9.items() if opts),
        *(
            _cifar(f"decoupled32_{o}", "decoupled32_tanh", f"{_MAGNITUDE}={o.capitalize()}")
            for o in OPERATORS
            if o not in ("baseline", "tanh")
        ),
        *(
            _cifar(f"{name}{depth}", f"{name}20", f"{_DEPTH}={depth}")
            for name in ("vanilla", "vanilla_bn", "r_vanilla")
            for depth in (56, 110)
        ),
    ],
}
IMAGENET = [p for p in LEAVES if p.parent.name == "imagenet"] + _VARIANTS["imagenet"]
CIFAR = [p for p in LEAVES if p.parent.name == "cifar"] + _VARIANTS["cifar"]
NETWORKS = [*LEAVES, *_VARIANTS["imagenet"], *_VARIANTS["cifar"]]
DECOUPLED_RECIPE = [p for p in IMAGENET if p.stem.startswith(("decoupled", "modified"))]
ISONET_RECIPE = [p for p in IMAGENET if p not in DECOUPLED_RECIPE]
DEPTHS = (18, 34, 50, 101)


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=_label)


def _label(network: Path | Variant) -> str:
    file = network.file if isinstance(network, Variant) else network
    return (file.parent.relative_to(CONFIGS) / network.stem).as_posix()


def name_and_depth(path: Path | Variant) -> tuple[str, int]:
    """("isonet_relu", 34) of isonet34_relu."""
    depth = re.search(r"\d+", path.stem)[0]
    return path.stem.replace(depth, "", 1), int(depth)


@functools.cache
def config(path: Path | Variant):
    file, opts = (path.file, path.opts) if isinstance(path, Variant) else (path, ())
    cfg = load_config(str(file), [*opts, "MODEL.DEVICE=meta"])
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        cfg.MODEL.CLASSIFIER.NUM_CLASSES = 10
    cfg.freeze()
    return cfg


@functools.cache
def model(path: Path | Variant):
    with torch.device("meta"):
        return build_model(config(path))


def backbone_shapes(path: Path | Variant) -> dict[str, tuple]:
    """Shapes by name from the stage on, also of C4's res5 and below an FPN."""
    shapes = {}
    for name, tensor in model(path).state_dict().items():
        parts = name.split(".")
        stage = next((i for i, part in enumerate(parts) if part in STAGES), None)
        if stage is not None and not name.endswith("num_batches_tracked"):
            shapes[".".join(parts[stage:])] = tuple(tensor.shape)
    return shapes
