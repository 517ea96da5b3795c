"""Weights that travel: writing backbone.pth, and loading weights that must fit or stop."""

import logging
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from tabulate import tabulate

from .resnet import STAGES, stage_of

FORMAT_VERSION = 1
# Norms with the same tensors: pretrained BN is frozen or synchronized in detection.
_BATCH_NORMS = {"BN", "SyncBN", "FrozenBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N"}


class WeightsError(ValueError):
    """Weights that do not fit the model they are loaded into."""


def save_backbone(path: str | os.PathLike, state_dict: Mapping, meta: dict) -> None:
    """Write weights that any detector of this project loads without conversion.

    Args:
        path: the file; it appears complete or not at all.
        state_dict: tensors by name, `stem.`, `res2.` ... `res5.`.
        meta: plain types only: "architecture" and "input" are checked against the config at load.
    """
    model = {name: tensor.detach().cpu().clone() for name, tensor in state_dict.items()}
    # detectron2 sends res5 to roi_heads.res5 (C4) or to bottom_up (FPN) only with this flag
    content = {
        "model": model,
        "matching_heuristics": True,
        "meta": {"format_version": FORMAT_VERSION, **meta},
    }
    temporary = Path(f"{path}.partial")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, temporary)
    os.replace(temporary, path)


def meta_differences(meta: Mapping, expected: Mapping) -> list[str]:
    """One line for every entry in which the file's `meta` differs from what the config asks."""
    lines = []
    for section in ("architecture", "input"):
        for key, asked in expected[section].items():
            found = meta.get(section, {}).get(key, asked)
            if not _same(key, found, asked) and not _unused(key, expected[section]):
                lines.append(f"{section} {key}: {found!r} in the file, {asked!r} in the config")
    return lines


def _same(key: str, found, asked) -> bool:
    if key == "norm" and found in _BATCH_NORMS and asked in _BATCH_NORMS:
        return True
    if isinstance(asked, list):
        return len(found) == len(asked) and all(
            abs(a - b) < 1e-3 for a, b in zip(found, asked, strict=True)
        )
    return found == asked


def _unused(key: str, architecture: Mapping) -> bool:
    """Whether `key` changes nothing in this architecture."""
    if key == "residual_scale_shape":
        return not architecture["residual_scale"]
    return key in ("width_per_group", "stride_in_1x1") and architecture["depth"] < 50


class ISONetCheckpointer(DetectionCheckpointer):
    """DetectionCheckpointer that stops where detectron2 warns and trains on random weights.

    Args:
        expected_meta: what a file's meta record must say ("architecture", "input"); None to skip.
        strict: True asks for every tensor of the model, not those of the backbone alone. A
            checkpoint that a training goes on from is always asked for all.
        trust_pickle: read .pkl files, which can run any code their author put in.

    Raises (from load):
        FileNotFoundError: there is no such file.
        WeightsError: the file is no checkpoint, or is that of another network.
    """

    def __init__(
        self,
        model,
        save_dir="",
        *,
        expected_meta: Mapping | None = None,
        strict: bool = False,
        trust_pickle: bool = False,
        **checkpointables,
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.expected_meta = expected_meta
        self.strict = strict
        self.trust_pickle = trust_pickle
        self.logger = logging.getLogger("d2_isonet.checkpoint")

    def save(self, name, **extra):
        # so that evaluating or going on with other pixels is refused as at the first load
        meta = {} if self.expected_meta is None else {"meta": dict(self.expected_meta)}
        super().save(name, **meta, **extra)

    def load(self, path, checkpointables=None):
        self._path = path
        if path and "://" not in path and not os.path.isfile(path):
            raise FileNotFoundError(
                f"MODEL.WEIGHTS: there is no file {os.path.abspath(path)}. Make it with "
                "tools/pretrain_imagenet.py or tools/convert_isonet_weights.py, name another, "
                "or set MODEL.WEIGHTS '' to start from initialization"
            )
        self._resumes = checkpointables is None
        return super().load(path, checkpointables)

    def _load_file(self, filename):
        problem = what_is_wrong(filename, self.trust_pickle)
        if problem:
            raise WeightsError(f"{os.path.abspath(filename)} {problem}")
        try:
            return super()._load_file(filename)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise WeightsError(
                f"{os.path.abspath(filename)} cannot be read as a checkpoint (truncated, or holds "
                f"more than tensors and plain types): {reason}"
            ) from error

    def _load_model(self, checkpoint):
        meta = checkpoint.get("meta")
        others = [n for n, x in checkpoint["model"].items() if not hasattr(x, "shape")]
        if others:
            raise WeightsError(
                f"{self._path} has entries that are no tensors: {', '.join(others[:5])}. Weights "
                "of another program go through tools/convert_isonet_weights.py first"
            )
        if meta and self.expected_meta:
            differences = meta_differences(meta, self.expected_meta)
            if differences:
                raise WeightsError(
                    f"{self._path} is not the network the config describes:\n  "
                    + "\n  ".join(differences)
                )
        if meta and "linear.weight" not in self.model.state_dict():
            for name in ("linear.weight", "linear.bias"):  # a classifier's; no place in a detector
                checkpoint["model"].pop(name, None)
        # what a training has saved must come back whole when it goes on
        strict = self.strict or (self._resumes and "trainer" in checkpoint)
        found = {name: tuple(value.shape) for name, value in checkpoint["model"].items()}
        incompatible = super()._load_model(checkpoint)
        unloaded = {*incompatible.missing_keys, *(x[0] for x in incompatible.incorrect_shapes)}
        self._check_loaded(unloaded, found, strict)
        return incompatible

    def _check_loaded(self, unloaded: set[str], found: Mapping, strict: bool) -> None:
        """Print N of M tensors a part; raise where a part that must be loaded is not whole."""
        rows, incomplete = load_report(self.model.state_dict(), unloaded, strict)
        headers = ["part", "tensors loaded", "of", "still as initialized"]
        self.logger.info(f"Weights from {self._path}:\n" + tabulate(rows, headers=headers))
        if incomplete:
            asked = {name: tuple(self.model.state_dict()[name].shape) for name in incomplete}
            raise WeightsError(_mismatch_message(self._path, asked, found))


def load_report(state_dict: Mapping, unloaded: set[str], strict: bool) -> tuple[list, list[str]]:
    """Rows (part, loaded, total, not loaded) and the names that had to load and did not."""
    names = defaultdict(list)
    for name in state_dict:
        if not name.endswith("num_batches_tracked"):  # detectron2's zoo has none
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


def _mismatch_message(path: str, asked: Mapping, found: Mapping) -> str:
    """`asked`: shapes by name that were not loaded; `found`: all shapes of the file."""
    lines = []
    for name, shape in list(asked.items())[:5]:
        same = next((n for n in found if name == n or name.endswith("." + n)), None)
        there = f"shape {found[same]} in the file, {shape} in the model" if same else ""
        lines.append(f"{name}: {there or 'not in the file'}")
    more = f"\n  and {len(asked) - 5} more" if len(asked) > 5 else ""
    return (
        f"{path} does not fit the model: {len(asked)} tensors would keep their random "
        "initialization:\n  " + "\n  ".join(lines) + more + "\nCheck MODEL.RESNETS.DEPTH, the "
        "number of classes and, for a pretrained backbone, that this is its backbone.pth"
    )


def what_is_wrong(filename: str, trust_pickle: bool = False) -> str | None:
    """Why `filename` cannot be a checkpoint, told from its name and first bytes; None if it may."""
    with open(filename, "rb") as file:
        head = file.read(200)
    if not head:
        return "is empty (0 bytes): the copy or the download broke off"
    if head.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the weights: run `git lfs pull`"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is an HTML page, not weights: the download needs a login or another address"
    if filename.endswith((".pkl", ".pickle")) and not trust_pickle:
        return (
            "is a pickle, which can run any code its author put in; give --trust-pickle if you "
            "trust its source, or convert it to .pth"
        )
    return None
