"""Matches the tensors of a weights file with a model, and stops if they do not fit."""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.stages import STAGES, label_of, stage_of
from d2_isonet.utils.messages import shortened

from .reading import WeightsError
from .record import convolutions_of, meta_differences

logger = logging.getLogger(__name__)
_BATCH_COUNTER = "num_batches_tracked"  # of batch norms; detectron2's zoo and FrozenBN have none


def match(
    path: str,
    meta: Mapping | None,
    tensors: dict[str, torch.Tensor],
    model: nn.Module,
    *,
    expected: Mapping | None,
    from_conv2d: bool,
) -> set[str]:
    """Compare the record, remove tensors that `model` does not need, and return optional names.

    Args:
        meta: the file's record, None if it has none.
        expected: the record that the file must agree with, None to skip the comparison.
        from_conv2d: let decoupled convolutions start from ordinary ones, whose biases they do not
            need; their radius and k are optional and stay as initialized.

    Raises:
        WeightsError: the record is that of another network, or of other pixels.
    """
    from_conv2d = from_conv2d and convolutions_of(meta) == "Conv2d"
    differences = meta_differences(meta, expected, from_conv2d) if meta and expected else []
    if differences:
        raise WeightsError(
            f"{path} is not the network the config describes:\n  " + "\n  ".join(differences)
        )
    # a detector does not need a classifier
    if meta and "linear.weight" not in model.state_dict():
        tensors.pop("linear.weight", None)
        tensors.pop("linear.bias", None)
    return _match_decoupled(path, tensors, model) if from_conv2d else set()


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
        strict: require every tensor of the model.
        optional: names of the model that the file need not have.

    Raises:
        WeightsError: a required tensor was not loaded, or the file's backbone has more blocks.
    """
    state = model.state_dict()
    unloaded = {*incompatible.missing_keys, *(x[0] for x in incompatible.incorrect_shapes)}
    rows, incomplete = _load_report(state, unloaded, strict)
    headers = ["part", "tensors loaded", "of", "still as initialized"]
    logger.info(f"Weights from {path}:\n" + tabulate(rows, headers=headers))
    asked = {name: tuple(state[name].shape) for name in incomplete if name not in optional}
    if asked:
        raise _mismatch(path, asked, found)
    stages = {*map(stage_of, state)} & {*STAGES}
    left_over = [
        name
        for name in incompatible.unexpected_keys
        if stage_of(name) in stages and not name.endswith(_BATCH_COUNTER)
    ]
    if left_over:
        raise WeightsError(
            f"{path} does not fit the model: {len(left_over)} tensors of its backbone have no "
            f"place in the model ({shortened(left_over)})",
            "check MODEL.RESNETS.DEPTH",
        )


def _load_report(state: Mapping, unloaded: set[str], strict: bool) -> tuple[list, list[str]]:
    """Rows (part, loaded, total, not loaded), and required names that were not loaded."""
    names = defaultdict(list)
    for name in state:
        if not name.endswith(_BATCH_COUNTER):
            names[stage_of(name)].append(name)
    rows, incomplete = [], []
    for part, members in names.items():
        left = [name for name in members if name in unloaded]
        rows.append((part, len(members) - len(left), len(members), len(left) or ""))
        if strict or part in STAGES:
            incomplete += left
    if not any(loaded for _, loaded, _, _ in rows):
        incomplete = [name for members in names.values() for name in members]
    return rows, incomplete


_CHECK = (
    "check MODEL.RESNETS.DEPTH, the number of classes and, for a pretrained backbone, that this is "
    "its backbone.pth"
)
_RENAMED = (
    "to have detectron2 match names that lack their beginning, save the file again as "
    "{'model': STATE_DICT, 'matching_heuristics': True}"
)
_BACKBONE_ALONE = (
    "it holds a backbone alone: give the model_final.pth of a training that started from it"
)


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
    remedy = _RENAMED if renamed else _CHECK
    if {*map(stage_of, asked)}.isdisjoint(STAGES) and {*map(stage_of, found)} <= {*STAGES}:
        remedy = _BACKBONE_ALONE
    kept = f"{len(asked)} tensors would keep their random initialization"
    names = shortened(lines, separator="\n  ")
    return WeightsError(f"{path} does not fit the model: {kept}:\n  {names}", remedy)
