"""Writes backbone.pth, and loads weights that must fit the model."""

import functools
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode

from d2_isonet.data.categories import (
    categories_record,
    classes_of_data_sets,
    number_of_classes,
)
from d2_isonet.utils.compat import load_file
from d2_isonet.utils.files import why_not_regular, write_text
from d2_isonet.utils.messages import MissingFileError, UserError, is_from_user_code

from .classes import match_classes
from .files import TAG, write_checkpoint
from .matching import architecture, check_loaded, match, record_of
from .reading import (
    WeightsError,
    is_read_by_detectron2,
    read_tensors,
    tensors_of,
    unreadable,
    what_is_wrong,
)

FORMAT_VERSION = 1
_OF_WRONG_TYPES = (ArithmeticError, AttributeError, LookupError, TypeError)


def save_backbone(path: str | os.PathLike, state_dict: Mapping, meta: dict) -> None:
    """Write weights that every detector of this project loads without conversion.

    Args:
        path: the file, .pth or .safetensors; it appears complete or not at all.
        state_dict: tensors by name, `stem.`, `res2.` ... `res5.`.
        meta: plain types only; "architecture" and "input" are compared with the config at load.
    """
    content = {
        "model": {name: tensor.detach().cpu().clone() for name, tensor in state_dict.items()},
        # detectron2 sends res5 to roi_heads.res5 (C4) or to bottom_up (FPN) only with this flag
        "matching_heuristics": True,
        "meta": {"format_version": FORMAT_VERSION, **meta},
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, content)


class ISONetCheckpointer(DetectionCheckpointer):
    """DetectionCheckpointer that stops where detectron2 warns and trains on random weights.

    A model on the meta device reads names and shapes alone, and refuses what the real one would.

    Args:
        expected_meta: what a file's meta record must say ("architecture", "input"); None to skip.
            Files that are saved get it as their record; a resumed training keeps the categories of
            the record that it resumes, none if that has none.
        strict: require every tensor of the model, not only those of the backbone. A training that
            resumes always requires all.
        from_conv2d: let a training start its decoupled convolutions from ordinary ones (the rows
            marked * of the Decoupled Networks slides); radius and k stay as initialized.
        trust_pickle: read .pkl files, which can run any code their author put in.
        classes: returns the class names of the data that the model meets, by data set; they are
            compared with the record, see `match_classes`. None if the model meets no data.

    `path` is the file that was loaded last, `record` its meta record, None if it has none, and
    `restarts` a sentence on the tensors that start anew because the classes differ, or "".

    `load` raises FileNotFoundError if there is no such file, and WeightsError if the file is no
    checkpoint or is that of another network.
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
        classes: Callable[[], Mapping[str, list[str]]] | None = None,
        **checkpointables,
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.path = self.restarts = ""
        self.record: Mapping | None = None
        self.expected_meta = expected_meta
        self.strict = strict
        self.from_conv2d = from_conv2d
        self.trust_pickle = trust_pickle
        self.classes = classes
        self.logger = logging.getLogger(__name__)

    def save(self, name, tag=True, **extra):
        """Write name.pth, at every moment the old file or the whole new one, then last_checkpoint.

        Without `tag`, last_checkpoint is unchanged: no training resumes from this file. Raises
        SaveError if the disk is full or fails; the old files are unchanged.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: x.state_dict() for key, x in self.checkpointables.items()}
        # so that evaluating or resuming with other pixels is refused as at the first load
        meta = {} if not self.expected_meta else {"meta": dict(self.expected_meta)}
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
        try:
            if "?" in path and os.path.isfile(path):
                return load_file(self, path, checkpointables)
            return super().load(path, checkpointables)
        except _OF_WRONG_TYPES as error:
            if is_from_user_code(error):
                raise
            what = f"{path} has values of another kind ({type(error).__name__}: {error})"
            raise WeightsError(what, "choose another checkpoint, or make it again") from error

    def _load_file(self, filename):
        path = os.path.abspath(filename)
        problem = what_is_wrong(path, self.trust_pickle)
        if problem:
            raise WeightsError(f"{path} {problem}")
        if is_read_by_detectron2(path):
            try:
                return super()._load_file(filename)
            except Exception as error:  # unpickling broken bytes can raise nearly anything
                raise unreadable(path, error) from error
        is_meta = any(parameter.is_meta for parameter in self.model.parameters())
        content = read_tensors(path, device="meta" if is_meta else "cpu")
        return content if isinstance(content, dict) and "model" in content else {"model": content}

    def _load_model(self, checkpoint):
        try:
            self.record = record_of(checkpoint)
        except ValueError as error:
            raise WeightsError(f"{self.path}: {error}", "make it again") from error
        # a training that resumes must get back everything it saved
        strict = self.strict or (self._resumes and "trainer" in checkpoint)
        remedy = "convert weights of another program with d2-isonet convert first"
        tensors = tensors_of(self.path, checkpoint["model"], remedy)
        is_start = self.from_conv2d and not strict
        record, expected = self.record, self.expected_meta
        optional = match(self.path, record, tensors, self.model, expected, from_conv2d=is_start)
        self._match_classes(tensors, starts=not (self.strict or self._resumes))
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        incompatible = super()._load_model(checkpoint)
        check_loaded(self.path, self.model, found, incompatible, strict=strict, optional=optional)
        return incompatible

    def _match_classes(self, tensors: dict, starts: bool) -> None:
        if self.record and self.classes:
            names = (self.path, self.record, self.classes)
            self.restarts = match_classes(*names, tensors, self.model.state_dict(), starts=starts)
        if self._resumes:  # the names are those of the file, also if it has none
            kept = {k: v for k, v in (self.record or {}).items() if k == "categories"}
            others = {k: v for k, v in (self.expected_meta or {}).items() if k != "categories"}
            self.expected_meta = {**others, **kept}


def require_file(path: str) -> None:
    """Raise FileNotFoundError if MODEL.WEIGHTS names no file, and UserError if a FIFO or device."""
    full = os.path.abspath(path)
    if os.path.isdir(path):
        raise MissingFileError(f"MODEL.WEIGHTS: {full} is a folder; name a file in it")
    if not os.path.exists(path):
        raise MissingFileError(
            f"MODEL.WEIGHTS: there is no file {full}. Make it with d2-isonet pretrain or d2-isonet "
            "convert, name another, or set MODEL.WEIGHTS '' to start from initialization"
        )
    problem = why_not_regular(path)
    if problem:
        raise UserError(f"MODEL.WEIGHTS: {full} cannot be read: {problem}", "name a file")


def build_checkpointer(
    cfg: CfgNode, model, data_sets: Iterable[str] = (), **options
) -> ISONetCheckpointer:
    """The checkpointer of cfg.OUTPUT_DIR, which compares files with the network and pixels of cfg.

    Its files also record the classes of the training set.

    Args:
        data_sets: names of the data sets that the model meets: their classes are compared, too.
    """
    classes = functools.partial(classes_of_data_sets, tuple(data_sets), number_of_classes(cfg))
    meta = {**describe(cfg), **categories_record(cfg)}
    from_conv2d = cfg.MODEL.DECOUPLED.FROM_CONV2D
    return ISONetCheckpointer(
        model,
        cfg.OUTPUT_DIR,
        expected_meta=meta,
        from_conv2d=from_conv2d,
        classes=classes,
        **options,
    )


def describe(cfg: CfgNode) -> dict:
    """The part of backbone.pth's meta record that cfg decides."""
    mean, std = list(cfg.MODEL.PIXEL_MEAN), list(cfg.MODEL.PIXEL_STD)
    pixels = {"format": cfg.INPUT.FORMAT, "pixel_mean": mean, "pixel_std": std}
    return {"architecture": architecture(cfg), "input": pixels}
