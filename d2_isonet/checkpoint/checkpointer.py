"""Weights that travel: writing backbone.pth, and loading weights that must fit or stop."""

import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from tabulate import tabulate
from torch import nn

from d2_isonet.data.categories import categories_record
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.stages import STAGES, stage_of
from d2_isonet.utils.compat import load_file
from d2_isonet.utils.files import write_text
from d2_isonet.utils.messages import MissingFileError, some

from .files import TAG, write_checkpoint
from .matching import (
    BATCH_COUNTER,
    architecture,
    convolutions_of,
    load_report,
    meta_differences,
    mismatch_message,
    record_of,
)
from .reading import WeightsError, unreadable, what_is_wrong
from .safetensors_file import SUFFIX, is_safetensors, read_safetensors, write_safetensors


def write_weights(path: str | os.PathLike, content: Mapping) -> None:
    """Write a checkpoint in the format of the file's name: .safetensors, else torch.save's."""
    write = write_safetensors if os.fspath(path).endswith(SUFFIX) else write_checkpoint
    write(path, content)


FORMAT_VERSION = 1


def save_backbone(path: str | os.PathLike, state_dict: Mapping, meta: dict) -> None:
    """Write weights that any detector of this project loads without conversion.

    Args:
        path: the file, .pth or .safetensors; it appears complete or not at all.
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
    write_weights(path, content)


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

    `path` is the file that was loaded last, `record` its meta record, None where it has none.

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
        self.record: Mapping | None = None
        self.expected_meta = expected_meta
        self.strict = strict
        self.from_conv2d = from_conv2d
        self.trust_pickle = trust_pickle
        self.logger = logging.getLogger("d2_isonet.checkpoint.checkpointer")

    def save(self, name, tag=True, **extra):
        """Write name.pth so that no moment finds it half written, then last_checkpoint.

        Args:
            tag: False leaves last_checkpoint as it is: a training does not go on from this file.

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
        if tag:
            self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename):
        write_text(os.path.join(self.save_dir, TAG), last_filename_basename)

    def load(self, path, checkpointables=None):
        self.path = path
        if path and "://" not in path:
            require_file(path)
        self._resumes = checkpointables is None
        self._parsed_url_during_load = None  # a load that raised leaves it set, on HEAD
        if "?" in path and os.path.isfile(path):
            return load_file(self, path, checkpointables)
        return super().load(path, checkpointables)

    def _load_file(self, filename):
        problem = what_is_wrong(filename, self.trust_pickle)
        if problem:
            raise WeightsError(f"{os.path.abspath(filename)} {problem}")
        if is_safetensors(filename):
            return read_safetensors(filename)
        try:
            content = super()._load_file(filename)
        except Exception as error:  # unpickling broken bytes can raise nearly anything
            raise unreadable(os.path.abspath(filename), error) from error
        if not isinstance(content, dict):  # detectron2 finds a "model" in a text that has the word
            raise WeightsError(f"{self.path} holds a {type(content).__name__}, no state_dict")
        return content

    def _load_model(self, checkpoint):
        meta = self.record = record_of(checkpoint)
        weights = checkpoint["model"]
        if not isinstance(weights, Mapping):
            raise WeightsError(f"{self.path} holds a {type(weights).__name__}, no state_dict")
        others = [str(n) for n, x in weights.items() if not hasattr(x, "shape") or n != str(n)]
        if others:
            raise WeightsError(
                f"{self.path} has entries that are no tensors: {', '.join(others[:5])}. Weights "
                "of another program go through tools/convert_isonet_weights.py first"
            )
        # what a training has saved must come back whole when it goes on
        strict = self.strict or (self._resumes and "trainer" in checkpoint)
        starts = self.from_conv2d and not strict and convolutions_of(meta) == "Conv2d"
        if meta and self.expected_meta:
            self._check_record(meta, self.expected_meta, starts)
        if meta and "linear.weight" not in self.model.state_dict():
            for name in ("linear.weight", "linear.bias"):  # a classifier's; no place in a detector
                checkpoint["model"].pop(name, None)
        found = {name: tuple(value.shape) for name, value in checkpoint["model"].items()}
        incompatible = super()._load_model(checkpoint)
        unloaded = {*incompatible.missing_keys, *(x[0] for x in incompatible.incorrect_shapes)}
        self._check_loaded(unloaded, found, strict, _operator_tensors(self.model) if starts else ())
        left_over = incompatible.unexpected_keys
        self._check_left_over(self._without_biases(left_over) if starts else left_over)
        return incompatible

    def _check_record(self, meta: Mapping, expected: Mapping, starts_from_conv2d: bool) -> None:
        differences = meta_differences(meta, expected, starts_from_conv2d)
        if not differences:
            return
        kinds = convolutions_of(meta), convolutions_of(expected)
        if kinds == ("Conv2d", "Decoupled") and not self.from_conv2d:
            differences.append(
                "(to start a decoupled network from ordinary convolutions, set "
                "MODEL.DECOUPLED.FROM_CONV2D True)"
            )
        raise WeightsError(
            f"{self.path} is not the network the config describes:\n  " + "\n  ".join(differences)
        )

    def _without_biases(self, names: list[str]) -> list[str]:
        """The names but for the biases of ordinary convolutions where decoupled ones, which have
        none, now stand (a network without norm has them); those are told.
        """
        places = _decoupled_places(self.model)
        biases = [n for n in names if _from_stage(n).removesuffix(".bias") in places]
        if biases:
            self.logger.warning(
                f"{len(biases)} biases of {self.path} are left out ({some(biases)}): a decoupled "
                "convolution has none"
            )
        return [name for name in names if name not in biases]

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
            raise WeightsError(mismatch_message(self.path, asked, found))

    def _check_left_over(self, names: list[str]) -> None:
        """Raise where the file's backbone has more blocks than the model's: it is another one."""
        stages = {stage_of(name) for name in self.model.state_dict()} & set(STAGES)
        names = [n for n in names if stage_of(n) in stages and not n.endswith(BATCH_COUNTER)]
        if names:
            raise WeightsError(
                f"{self.path} does not fit the model: {len(names)} tensors of its backbone have no "
                f"place in the model ({some(names)}). Check MODEL.RESNETS.DEPTH"
            )


def require_file(path: str) -> None:
    """Raise FileNotFoundError where the weights are not there."""
    if os.path.isdir(path):
        raise MissingFileError(
            f"MODEL.WEIGHTS: {os.path.abspath(path)} is a folder; name a file in it"
        )
    if not os.path.isfile(path):
        raise MissingFileError(
            f"MODEL.WEIGHTS: there is no file {os.path.abspath(path)}. Make it with "
            "tools/pretrain_imagenet.py or tools/convert_isonet_weights.py, name another, "
            "or set MODEL.WEIGHTS '' to start from initialization"
        )


def _decoupled_places(model: nn.Module) -> set[str]:
    """Where decoupled convolutions are, named from their stage on: "res2.0.conv1"."""
    convs = [name for name, m in model.named_modules() if isinstance(m, DecoupledConv2d)]
    return {_from_stage(name) for name in convs}


def _from_stage(name: str) -> str:
    return name[name.index(stage_of(name)) :]


def _operator_tensors(model: nn.Module) -> set[str]:
    """Names of what a decoupled convolution has beside its weight: radius, its scale, k."""
    return {
        f"{prefix}.{name}"
        for prefix, conv in model.named_modules()
        if isinstance(conv, DecoupledConv2d)
        for name, _ in (*conv.named_parameters(recurse=False), *conv.named_buffers(recurse=False))
        if name != "weight"
    }


def build_checkpointer(cfg: CfgNode, model, **options) -> ISONetCheckpointer:
    """The checkpointer of cfg.OUTPUT_DIR, which knows what network and pixels cfg asks for.

    Its files also record the classes of the training set.
    """
    meta = {**describe(cfg), **categories_record(cfg)}
    from_conv2d = cfg.MODEL.DECOUPLED.FROM_CONV2D
    return ISONetCheckpointer(
        model, cfg.OUTPUT_DIR, expected_meta=meta, from_conv2d=from_conv2d, **options
    )


def describe(cfg: CfgNode) -> dict:
    """The part of backbone.pth's meta record that cfg decides."""
    pixels = {
        "format": cfg.INPUT.FORMAT,
        "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),
        "pixel_std": list(cfg.MODEL.PIXEL_STD),
    }
    return {"architecture": architecture(cfg), "input": pixels}
