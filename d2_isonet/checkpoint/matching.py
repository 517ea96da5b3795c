"""Compares a weights file with a config and a model, and stops if they do not fit."""

import logging
import reprlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from tabulate import tabulate
from torch import nn

from d2_isonet.config.options import CNN9_BACKBONE
from d2_isonet.layers.decoupled_conv import WITH_BETA, WITH_RADIUS, DecoupledConv2d
from d2_isonet.modeling.backbone.checks import res2_out_channels
from d2_isonet.modeling.stages import STAGES, label_of, stage_of
from d2_isonet.utils.messages import shortened

from .reading import WeightsError

logger = logging.getLogger(__name__)
_BATCH_COUNTER = "num_batches_tracked"  # of batch norms; detectron2's zoo and FrozenBN have none
# Norms with the same tensors: pretrained BN is frozen or synchronized in detection.
_BATCH_NORMS = ("BN", "SyncBN", "FrozenBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
# The meaning of older records, which lack these keys.
_BEFORE = {"block": "residual", "small_images": False, "conv": "Conv2d", "norm_groups": 32}


def record_of(checkpoint: Mapping) -> Mapping | None:
    """The record in a checkpoint; None if there is none, or a "meta" of another program.

    Raises ValueError if a section of it is no mapping.
    """
    meta = checkpoint.get("meta")
    if not isinstance(meta, Mapping):
        return None
    for name in ("architecture", "input"):
        section = meta.get(name)
        if not isinstance(section, Mapping | None):
            raise ValueError(f"{name} in its meta record is a {type(section).__name__}")
    return meta


def meta_differences(meta: Mapping, expected: Mapping, from_conv2d: bool = False) -> list[str]:
    """One line for every entry in which the file's `meta` differs from the config's record.

    A section that the file lacks, or a key that old files leave to the tensors, is no difference.
    With `from_conv2d`, neither are ordinary convolutions in the file for decoupled ones.
    """
    lines = []
    for section in ("architecture", "input"):
        record = meta.get(section)
        if not record:
            continue
        for key, asked in expected.get(section, {}).items():
            found = record.get(key, _BEFORE.get(key, asked))
            if key == "conv" and from_conv2d and found == "Conv2d":
                continue
            if _same(key, found, asked) or _unused(key, expected[section]):
                continue
            shown = reprlib.repr(found)
            lines.append(f"{section} {key}: {shown} in the file, {asked!r} in the config")
            if (found, asked) == ("Conv2d", "Decoupled"):
                lines[-1] += " (a training can start from it with MODEL.DECOUPLED.FROM_CONV2D True)"
    return lines


def _same(key: str, found, asked) -> bool:
    if key == "norm" and found in _BATCH_NORMS and asked in _BATCH_NORMS:
        return True
    if not isinstance(asked, list):
        return type(found) is type(asked) and found == asked
    return (
        isinstance(found, list | tuple)
        and len(found) == len(asked)
        and all(isinstance(a, int | float) for a in found)
        and all(abs(a - b) < 1e-3 for a, b in zip(found, asked, strict=True))
    )


def _unused(key: str, architecture: Mapping) -> bool:
    """Whether `key` changes nothing in this architecture."""
    if key == "residual_scale_shape":
        return not architecture["residual_scale"]
    is_basic = architecture.get("depth", 0) < 50 or architecture.get("small_images", False)
    return key in ("width_per_group", "stride_in_1x1") and is_basic


def architecture(cfg: CfgNode) -> dict:
    """The entries of a record in which a weights file must agree with cfg, as plain types."""
    resnets, isonet = cfg.MODEL.RESNETS, cfg.MODEL.ISONET
    is_cnn9 = cfg.MODEL.BACKBONE.NAME == CNN9_BACKBONE
    record = {
        "backbone": "cnn9" if is_cnn9 else "resnet",
        "norm": resnets.NORM,
        "activation": isonet.ACTIVATION,
        "stem_out_channels": resnets.STEM_OUT_CHANNELS,
        "conv": isonet.CONV,
    }
    if resnets.NORM == "GN":
        record["norm_groups"] = isonet.NORM_GROUPS
    if isonet.CONV == "Decoupled":
        record |= _decoupled_architecture(cfg.MODEL.DECOUPLED)
    return record if is_cnn9 else {
        **record,
        "depth": resnets.DEPTH,
        "shortcut": isonet.SHORTCUT,
        "residual_scale": isonet.RESIDUAL_SCALE is not None,
        "residual_scale_shape": isonet.RESIDUAL_SCALE_SHAPE,
        "res2_out_channels": res2_out_channels(cfg),
        "num_groups": resnets.NUM_GROUPS,
        "width_per_group": resnets.WIDTH_PER_GROUP,
        "stride_in_1x1": resnets.STRIDE_IN_1X1,
        "block": isonet.BLOCK,
        "small_images": isonet.SMALL_IMAGES,
    }  # fmt: skip


def _decoupled_architecture(decoupled: CfgNode) -> dict:
    """Options that change the function or the tensor names; radii and a learned k are tensors."""
    record = {key: decoupled[key.upper()] for key in ("magnitude", "angular", "alpha")}
    if decoupled.MAGNITUDE in WITH_BETA:
        record["beta"] = decoupled.BETA
    if decoupled.MAGNITUDE in WITH_RADIUS:
        record["radius_scaled"] = decoupled.RADIUS_SCALE != "none"
    if decoupled.ANGULAR == "sigmoid":
        record["sigmoid_k"] = "learned" if decoupled.SIGMOID_K_LEARNED else decoupled.SIGMOID_K
    return record


def match(
    path: str,
    meta: Mapping | None,
    tensors: dict[str, torch.Tensor],
    model: nn.Module,
    expected: Mapping | None,
    *,
    from_conv2d: bool,
) -> set[str]:
    """Compare the record, remove tensors that `model` does not need, and return optional names.

    Args:
        meta: the file's record, None if it has none.
        expected: the record that the file must agree with, None to skip the comparison.
        from_conv2d: let decoupled convolutions start from ordinary ones, whose biases they do not
            need; their radius and k are optional and stay as initialized.

    Raises WeightsError if the record is that of another network, or of other pixels.
    """
    differences = meta_differences(meta, expected, from_conv2d) if meta and expected else []
    if differences:
        lines = "\n  ".join(differences)
        raise WeightsError(f"{path} is not the network the config describes:\n  {lines}")
    # a detector does not need a classifier
    if meta and "linear.weight" not in model.state_dict():
        tensors.pop("linear.weight", None)
        tensors.pop("linear.bias", None)
    found = ((meta or {}).get("architecture") or {}).get("conv", _BEFORE["conv"])
    is_start = from_conv2d and found == "Conv2d"
    return _match_decoupled(path, tensors, model) if is_start else set()


def _match_decoupled(path: str, tensors: dict[str, torch.Tensor], model: nn.Module) -> set[str]:
    """Remove the biases of ordinary convolutions; return the names of radius, its scale and k."""
    convs = {n: m for n, m in model.named_modules() if isinstance(m, DecoupledConv2d)}
    places = {label_of(name) for name in convs}
    biases = [n for n in tensors if label_of(n).removesuffix(".bias") in places]
    for name in biases:
        del tensors[name]
    if biases:
        logger.warning(
            f"{len(biases)} biases of {path} are left out ({shortened(biases)}): a decoupled "
            "convolution has none"
        )
    return {
        f"{prefix}.{name}"
        for prefix, conv in convs.items()
        for name, _ in (*conv.named_parameters(recurse=False), *conv.named_buffers(recurse=False))
        if name != "weight"
    }


def check_loaded(
    path: str,
    model: nn.Module,
    found: Mapping[str, tuple[int, ...]],
    incompatible: Any,
    *,
    strict: bool,
    optional: Collection[str],
) -> None:
    """Log N of M loaded tensors for each part of `model`, and require the backbone to be complete.

    Args:
        found: the shapes of the file's tensors by name.
        incompatible: what fvcore's checkpointer returns after loading.
        strict: require every tensor of the model, except those with `optional` names.

    Raises WeightsError if a required tensor was not loaded, or the file's backbone has more blocks.
    """
    state = model.state_dict()
    unloaded = {*incompatible.missing_keys, *(x[0] for x in incompatible.incorrect_shapes)}
    names = [name for name in state if not name.endswith(_BATCH_COUNTER)]
    totals = Counter(map(stage_of, names))
    loaded = Counter(stage_of(name) for name in names if name not in unloaded)
    rows = [(part, loaded[part], n, n - loaded[part] or "") for part, n in totals.items()]
    headers = ["part", "tensors loaded", "of", "still as initialized"]
    logger.info(f"Weights from {path}:\n" + tabulate(rows, headers=headers))
    required = [n for n in names if strict or not loaded or stage_of(n) in STAGES]
    missing = [name for name in required if name in unloaded and name not in optional]
    if missing:
        raise _mismatch(path, {name: tuple(state[name].shape) for name in missing}, found)
    stages, unexpected = totals.keys() & {*STAGES}, incompatible.unexpected_keys
    rest = [n for n in unexpected if stage_of(n) in stages and not n.endswith(_BATCH_COUNTER)]
    if rest:
        what = f"{len(rest)} tensors of its backbone have no place in the model ({shortened(rest)})"
        raise WeightsError(f"{path} does not fit the model: {what}", "check MODEL.RESNETS.DEPTH")


def _mismatch(path: str, asked: Mapping, found: Mapping) -> WeightsError:
    """The error for tensors that were not loaded; shapes by name, in the model and in the file."""
    lines, renamed = [], False
    for name, shape in asked.items():
        same = next((n for n in found if name == n or name.endswith("." + n)), None)
        there = "not in the file"
        if same and found[same] == shape:
            there, renamed = f"there as {same}", True
        elif same:
            there = f"shape {found[same]} in the file, {shape} in the model"
        lines.append(f"{name}: {there}")
    remedy = (
        "check MODEL.RESNETS.DEPTH, the number of classes and, for a pretrained backbone, that this"
        " is its backbone.pth"
    )
    if {*map(stage_of, asked)}.isdisjoint(STAGES) and {*map(stage_of, found)} <= {*STAGES}:
        remedy = (
            "it holds a backbone alone: give the model_final.pth of a training that started from it"
        )
    elif renamed:
        remedy = (
            "to have detectron2 match names that lack their beginning, save the file again as "
            "{'model': STATE_DICT, 'matching_heuristics': True}"
        )
    names = shortened(lines, separator="\n  ")
    kept = f"{len(asked)} tensors would keep their random initialization:\n  {names}"
    return WeightsError(f"{path} does not fit the model: {kept}", remedy)
