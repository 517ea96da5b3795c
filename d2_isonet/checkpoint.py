"""Weights that travel: writing backbone.pth, and loading weights that must fit or stop."""

import logging
import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from tabulate import tabulate
from torch import nn

from .checkpoint_files import write_checkpoint, write_text
from .decoupled import DecoupledConv2d
from .resnet import STAGES, stage_of
from .resuming import TAG
from .weights_record import convolutions_of, meta_differences

FORMAT_VERSION = 1


class WeightsError(ValueError):
    """Weights that do not fit the model they are loaded into."""


def save_backbone(path: str | os.PathLike, state_dict: Mapping, meta: dict) -> None:
    """Write weights that any detector of this project loads without conversion.

    Args:
        path: the file; it appears complete or not at all (see `write_checkpoint`).
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
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, content)


class ISONetCheckpointer(DetectionCheckpointer):
    """DetectionCheckpointer that stops where detectron2 warns and trains on random weights.

    Args:
        expected_meta: what a file's meta record must say ("architecture", "input"); None to skip.
        strict: True asks for every tensor of the model, not those of the backbone alone. A
            checkpoint that a training goes on from is always asked for all.
        from_conv2d: a training may start its decoupled convolutions from ordinary ones (the rows
            marked * of the Decoupled Networks slides); what those have not, radius and k, stays
            as initialized.
        trust_pickle: read .pkl files, which can run any code their author put in.

    `path` is the file that was loaded last.

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
        from_conv2d: bool = False,
        trust_pickle: bool = False,
        **checkpointables,
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.path = ""
        self.expected_meta = expected_meta
        self.strict = strict
        self.from_conv2d = from_conv2d
        self.trust_pickle = trust_pickle
        self.logger = logging.getLogger("d2_isonet.checkpoint")

    def save(self, name, **extra):
        """Write name.pth so that no moment finds it half written, then last_checkpoint.

        Raises:
            SaveError: the disk is full or fails; the files are as they were.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: x.state_dict() for key, x in self.checkpointables.items()}
        # so that evaluating or going on with other pixels is refused as at the first load
        meta = {} if self.expected_meta is None else {"meta": dict(self.expected_meta)}
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        write_checkpoint(path, {"model": self.model.state_dict(), **states, **meta, **extra})
        self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename):
        write_text(os.path.join(self.save_dir, TAG), last_filename_basename)

    def load(self, path, checkpointables=None):
        self.path = path
        if path and "://" not in path and not os.path.isfile(path):
            raise FileNotFoundError(
                f"MODEL.WEIGHTS: there is no file {os.path.abspath(path)}. Make it with "
                "tools/pretrain_imagenet.py or tools/convert_isonet_weights.py, name another, "
                "or set MODEL.WEIGHTS '' to start from initialization"
            )
        self._resumes = checkpointables is None
        self._parsed_url_during_load = None  # a load that raised leaves it set, on HEAD
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
                f"{self.path} has entries that are no tensors: {', '.join(others[:5])}. Weights "
                "of another program go through tools/convert_isonet_weights.py first"
            )
        # what a training has saved must come back whole when it goes on
        strict = self.strict or (self._resumes and "trainer" in checkpoint)
        starts = self.from_conv2d and not strict and convolutions_of(meta) == "Conv2d"
        if meta and self.expected_meta:
            self._check_record(meta, starts)
        if meta and "linear.weight" not in self.model.state_dict():
            for name in ("linear.weight", "linear.bias"):  # a classifier's; no place in a detector
                checkpoint["model"].pop(name, None)
        found = {name: tuple(value.shape) for name, value in checkpoint["model"].items()}
        incompatible = super()._load_model(checkpoint)
        unloaded = {*incompatible.missing_keys, *(x[0] for x in incompatible.incorrect_shapes)}
        self._check_loaded(unloaded, found, strict, _operator_tensors(self.model) if starts else ())
        return incompatible

    def _check_record(self, meta: Mapping, starts_from_conv2d: bool) -> None:
        differences = meta_differences(meta, self.expected_meta, starts_from_conv2d)
        if not differences:
            return
        kinds = convolutions_of(meta), convolutions_of(self.expected_meta)
        if kinds == ("Conv2d", "Decoupled") and not self.from_conv2d:
            differences.append(
                "(to start a decoupled network from ordinary convolutions, set "
                "MODEL.DECOUPLED.FROM_CONV2D True)"
            )
        raise WeightsError(
            f"{self.path} is not the network the config describes:\n  " + "\n  ".join(differences)
        )

    def _check_loaded(
        self, unloaded: set[str], found: Mapping, strict: bool, exempt: Collection[str]
    ) -> None:
        """Print N of M tensors a part; raise where a part that must be loaded is not whole."""
        rows, incomplete = load_report(self.model.state_dict(), unloaded, strict)
        headers = ["part", "tensors loaded", "of", "still as initialized"]
        self.logger.info(f"Weights from {self.path}:\n" + tabulate(rows, headers=headers))
        incomplete = [name for name in incomplete if name not in exempt]
        if incomplete:
            asked = {name: tuple(self.model.state_dict()[name].shape) for name in incomplete}
            raise WeightsError(_mismatch_message(self.path, asked, found))


def _operator_tensors(model: nn.Module) -> set[str]:
    """Names of what a decoupled convolution has beside its weight: radius, its scale, k."""
    return {
        f"{prefix}.{name}"
        for prefix, conv in model.named_modules()
        if isinstance(conv, DecoupledConv2d)
        for name, _ in (*conv.named_parameters(recurse=False), *conv.named_buffers(recurse=False))
        if name != "weight"
    }


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
