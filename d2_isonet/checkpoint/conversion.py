"""Converts ISONet's released weights and torchvision's or timm's ResNets, and file formats."""

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import nn

from d2_isonet.modeling.backbone.resnet import NUM_BLOCKS, ISONetStem, make_isonet_stage
from d2_isonet.modeling.stages import stage_of
from d2_isonet.utils.messages import MissingFileError, UserError, shortened

from .checkpointer import save_backbone
from .files import write_checkpoint
from .foreign_networks import find_network, flattened, network_prefixes
from .reading import WeightsError, read_tensors, tensors_of
from .safetensors_file import SUFFIX
from .weight_names import rename_tensors

logger = logging.getLogger(__name__)
# Both sources were trained on RGB with the mean and std of ImageNet, here in the range 0-255.
PIXELS = {
    "format": "RGB",
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
}


def infer_architecture(path: str, tensors: Mapping) -> dict:
    """The architecture record (see `architecture` in matching.py), found from names and shapes.

    Raises WeightsError if no depth in NUM_BLOCKS has these numbers of blocks.
    """
    blocks = {tuple(name.split(".")[:2]) for name in tensors if name.startswith("res")}
    counts = tuple(number for _, number in sorted(Counter(stage for stage, _ in blocks).items()))
    is_bottleneck = "res2.0.conv3.weight" in tensors
    depths = [d for d, n in NUM_BLOCKS.items() if n == counts and (d >= 50) == is_bottleneck]
    convs = ("conv1", "conv2", "conv3" if is_bottleneck else "conv2")
    first, middle, last = (tensors.get(f"res2.0.{conv}.weight", torch.empty(0)) for conv in convs)
    if not depths or any(tensor.dim() != 4 for tensor in (first, middle, last)):
        kind = "bottleneck" if is_bottleneck else "basic"
        raise WeightsError(
            f"{path} has {kind} blocks {counts} in its stages, as none of the depths "
            f"{sorted(NUM_BLOCKS)} has"
        )
    width = len(first)
    groups = max(1, width // middle.shape[1]) if is_bottleneck else 1
    return {
        "backbone": "resnet",
        "depth": depths[0],
        "norm": "BN" if "stem.conv1.norm.weight" in tensors else "",
        "activation": "SReLU" if "stem.conv1.activation.shift" in tensors else "ReLU",
        "shortcut": "res3.0.shortcut.weight" in tensors,
        "residual_scale": "res2.0.residual_scale" in tensors,
        "residual_scale_shape": "block",
        "stem_out_channels": len(tensors["stem.conv1.weight"]),
        "res2_out_channels": len(last),
        "num_groups": groups,
        "width_per_group": width // groups,
        "stride_in_1x1": False,  # torchvision since 2017, timm and the authors: on the 3x3
        "block": "residual",
        "small_images": False,
        "conv": "Conv2d",
    }


def kind_of(architecture: Mapping) -> str:
    """One of "risonet", "isonet" and "resnet", or "other" for an ablation of the authors' code."""
    row = tuple(architecture[k] for k in ("norm", "activation", "shortcut", "residual_scale"))
    kinds = {
        ("", "SReLU", True, True): "risonet",
        ("", "SReLU", False, False): "isonet",
        ("BN", "ReLU", True, False): "resnet",
    }
    return kinds.get(row, "other")


def expected_shapes(architecture: Mapping, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of that network, from modules on the meta device."""
    options = {key: value for key, value in architecture.items() if key != "backbone"}
    options["residual_scale"] = 0.0 if architecture["residual_scale"] else None
    norm, activation = architecture["norm"], architecture["activation"]
    with torch.device("meta"):
        stem = ISONetStem(3, architecture["stem_out_channels"], norm=norm, activation=activation)
        parts: dict[str, nn.Module] = {"stem": stem}
        for stage in (2, 3, 4, 5):
            blocks = make_isonet_stage(stage, **options)
            parts[f"res{stage}"] = nn.Sequential(*blocks)
        parts["linear"] = nn.Linear(blocks[-1].out_channels, num_classes)
        return {k: tuple(v.shape) for k, v in nn.ModuleDict(parts).state_dict().items()}


def fit_tensors(path: str, tensors: Mapping, shapes: Mapping) -> dict[str, torch.Tensor]:
    """Every tensor of `shapes`, as float32, in that order.

    The authors' shifts (1, C, 1, 1) and scales (1, 1, 1, 1) lose their dimensions of size 1.
    Counters of batches, which torchvision's oldest files lack and inference never reads, become 0.
    Raises WeightsError if a tensor is missing, left over, of another shape, or not finite.
    """
    fitted, problems = {}, []
    for name, shape in shapes.items():
        is_counter = name.endswith("num_batches_tracked")
        tensor = tensors.get(name, torch.zeros(shape, dtype=torch.int64) if is_counter else None)
        if tensor is not None and name.endswith((".shift", ".residual_scale")):
            tensor = tensor.flatten()
        if tensor is None:
            problems.append(f"{name} is missing")
        elif tuple(tensor.shape) != shape:
            problems.append(f"{name} is {tuple(tensor.shape)}, not {shape}")
        elif not bool(torch.isfinite(tensor).all()):
            problems.append(f"{name} has NaN or infinite values")
        else:
            fitted[name] = tensor.float() if tensor.is_floating_point() else tensor
    problems += [f"{name} is left over" for name in tensors if name not in shapes]
    if problems:
        raise WeightsError(
            f"{path} is no complete network of the depth and kind that its names indicate: "
            f"{len(problems)} tensors do not fit: {shortened(problems)}"
        )
    return fitted


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    depth: int | None = None,
    kind: str | None = None,
    network: str | None = None,
    trust_pickle: bool = False,
    say: Callable[[str], object] = logger.info,
) -> tuple[dict, list[tuple[str, int]]]:
    """Write `source` as a weights file that this project's classifiers and detectors load.

    Returns its meta record and rows (stage, number of tensors). `depth` and `kind` ("risonet",
    "isonet" or "resnet") are what the file must hold, None for any. A file without a classifier
    gives a backbone, whose record has no "num_classes".

    Args:
        network: the place of the one to take, if there are several, see `find_network`.
        trust_pickle: run the code in the file.
        say: called with what was chosen and what was left out.

    Raises:
        FileNotFoundError: there is no `source`.
        WeightsError: `source` cannot be read, is another network, or is incomplete.
        UserError: `target` is `source` or a folder.
    """
    path = os.path.abspath(source)
    _check_paths(path, os.path.abspath(target))
    found = find_network(path, read_tensors(path, trust_pickle=trust_pickle), network)
    tensors, origin = rename_tensors(path, found.tensors)
    architecture = infer_architecture(path, tensors)
    for asked, stated in ((depth, architecture["depth"]), (kind, kind_of(architecture))):
        if asked not in (None, stated):
            raise WeightsError(
                f"{path} holds {stated}, not {asked} as asked", "give the right file"
            )
    if "linear.weight" not in tensors and "linear.bias" in tensors:
        raise WeightsError(f"{path} has no classifier", "give the whole network's weights")
    classes = {"num_classes": len(tensors["linear.weight"])} if "linear.weight" in tensors else {}
    shapes = expected_shapes(architecture, classes.get("num_classes", 1))
    if not classes:
        shapes = {k: shape for k, shape in shapes.items() if not k.startswith("linear.")}
    tensors = fit_tensors(path, tensors, shapes)
    place = "" if found.place == "." else f" {found.place}"
    source_text = f"{os.path.basename(path)}{place}, names of {origin}"
    meta = {"architecture": architecture, "input": PIXELS, **classes, "source": source_text}
    save_backbone(target, tensors, meta)
    if found.others:
        say(f"{found.place} is taken, not {', '.join(found.others)} (--network names another)")
    if found.left_out:
        say(f"left out: {shortened(found.left_out)}")
    if not classes:
        say("without a classifier: a backbone for detectors")
    return meta, list(Counter(stage_of(name) for name in tensors).items())


def _check_paths(source: str, target: str) -> None:
    if source == target:
        raise UserError(f"OUT is IN ({source})", "name another file for the result")
    if os.path.isdir(target):
        raise UserError(f"OUT is a folder ({target})", "name a file in it")
    if not os.path.isfile(source):
        problem = "is a folder" if os.path.isdir(source) else "does not exist"
        raise MissingFileError(f"{source} {problem}; name the checkpoint to convert")


def has_names_of_others(path: str, trust_pickle: bool = False) -> bool:
    """Whether the file holds weights of a known network under the names of another project."""
    if not os.path.isfile(path):
        return False
    return bool(network_prefixes(flattened(read_tensors(path, trust_pickle=trust_pickle))))


def config_options(meta: Mapping, detector: bool = False) -> list[str]:
    """KEY VALUE pairs that make configs/risonet*.yaml describe these weights.

    For a `detector`, weights that were trained with batch norm, and so without penalty, get frozen
    batch norm, as small batches require, and no orthogonal penalty.
    """
    architecture = meta["architecture"]
    usual = {
        "MODEL.RESNETS.STEM_OUT_CHANNELS": ("stem_out_channels", 64),
        "MODEL.RESNETS.RES2_OUT_CHANNELS": ("res2_out_channels", None),
        "MODEL.RESNETS.NUM_GROUPS": ("num_groups", 1),
        "MODEL.RESNETS.WIDTH_PER_GROUP": ("width_per_group", 64),
        "MODEL.RESNETS.NORM": ("norm", ""),
        "MODEL.ISONET.ACTIVATION": ("activation", "SReLU"),
        "MODEL.ISONET.SHORTCUT": ("shortcut", True),
    }
    pairs = {"MODEL.RESNETS.DEPTH": architecture["depth"]}
    pairs |= {k: architecture[n] for k, (n, value) in usual.items() if architecture[n] != value}
    if not architecture["residual_scale"]:
        pairs["MODEL.ISONET.RESIDUAL_SCALE"] = None
    if detector and architecture["norm"] == "BN":
        pairs |= {"MODEL.RESNETS.NORM": "FrozenBN", "SOLVER.ORTHO_COEFF": 0.0}
    return [str(word) for pair in pairs.items() for word in pair]


_KEPT = ("model", "matching_heuristics", "meta")
_SUFFIXES = (".pth", ".pt", SUFFIX)


def change_format(source: str, target: str, trust_pickle: bool = False) -> tuple[int, list[str]]:
    """Write the weights of the file `source`, and the record of their network, to `target`.

    With `trust_pickle`, the code in `source` is run, and the format need not change.

    Returns the number of tensors, and the names of what is dropped, such as an optimizer.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: a name has no known suffix, or both have the suffix of the same format.
        WeightsError: `source` is no weights file.
    """
    for path in (source, target):
        if not path.endswith(_SUFFIXES):
            raise UserError(f"{path}: its name must end in one of {', '.join(_SUFFIXES)}")
    if source.endswith(SUFFIX) == target.endswith(SUFFIX) and not trust_pickle:
        raise UserError(f"{source} and {target} are of one format", f"end one of them in {SUFFIX}")
    if not os.path.isfile(source):
        raise MissingFileError(f"there is no file {os.path.abspath(source)}; name the weights")
    content = read_tensors(source, trust_pickle=trust_pickle)
    if trust_pickle:
        content = content if isinstance(content, dict) else {"model": content}
        meta = {x: content[x] for x in ("matching_heuristics", "meta") if _is_plain(content.get(x))}
        content = {"model": flattened(content.get("model", content)), **meta}
    tensors = tensors_of(source, content, keys=("model",))
    content = {"model": tensors} if content is tensors else cast(dict, content)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(target, {key: content[key] for key in _KEPT if key in content})
    return len(tensors), sorted(set(map(str, content)) - set(_KEPT))


def _is_plain(value: object) -> bool:
    try:
        return value is not None and bool(json.dumps(value))
    except TypeError:
        return False
