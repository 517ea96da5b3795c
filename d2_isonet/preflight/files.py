"""Checks a run's files: the weights that it starts from, and the folder that it writes to."""

import argparse
import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from detectron2.config import CfgNode
from torch import nn

from d2_isonet.checkpoint.checkpointer import build_checkpointer, require_file
from d2_isonet.checkpoint.files import checkpoint_to_resume
from d2_isonet.checkpoint.reading import is_read_by_detectron2, what_is_wrong
from d2_isonet.utils.files import bytes_of, why_not_regular
from d2_isonet.utils.messages import UserError, refusals_of_libraries

from .findings import Finding

_WRITTEN = ("log.txt", "metrics.json", "config.yaml", "runs.json", "last_checkpoint")
_MOMENTS = {"SGD": 1, "Adam": 2}  # tensors of the optimizer for each trained tensor


def checkpoints_in(folder: str | os.PathLike) -> list[str]:
    """Sorted names of the checkpoints in a folder, "model_final.pth" last; [] without folder."""
    return sorted(path.name for path in Path(folder).glob("model_*.pth"))


def nothing_to_evaluate(cfg: CfgNode) -> UserError:
    """The error of --eval-only without weights."""
    return UserError(
        "--eval-only with MODEL.WEIGHTS '' would evaluate random weights",
        f"name a file, or add --resume to take the last checkpoint of {cfg.OUTPUT_DIR}",
    )


def weights_finding(cfg: CfgNode, args: argparse.Namespace, model: nn.Module | None) -> Finding:
    """What a training or an evaluation would start from.

    The weights are compared by names, shapes and classes.

    Args:
        model: the network of cfg on the meta device; None to check only the kind of the file.

    Raises:
        UserError: there is nothing to evaluate, no such file, or the file holds no weights or
            weights that do not fit.
    """
    path, from_conv2d = cfg.MODEL.WEIGHTS, cfg.MODEL.DECOUPLED.FROM_CONV2D
    if args.resume:
        with _silence("d2_isonet.checkpoint.files"):
            last = checkpoint_to_resume(cfg.OUTPUT_DIR)
        if last and model is not None:
            _load_outline(cfg, args, model, last)
        if last or checkpoints_in(cfg.OUTPUT_DIR):
            return _fact(f"--resume takes the last checkpoint of {cfg.OUTPUT_DIR}")
    if not path and args.eval_only:
        raise nothing_to_evaluate(cfg)
    if not path and from_conv2d:
        raise UserError(
            "MODEL.DECOUPLED.FROM_CONV2D is True, but MODEL.WEIGHTS is ''",
            "name the weights of the same network with ordinary convolutions, or set it to False",
        )
    if not path:
        return _fact("MODEL.WEIGHTS is '': all start from initialization")
    if "://" in path:
        return _fact(f"{path} is checked after its download")
    require_file(path)
    problem = what_is_wrong(path, args.trust_pickle)
    if problem:
        raise UserError(f"{os.path.abspath(path)} {problem}")
    if model is None or is_read_by_detectron2(path):
        return _fact(f"whether {path} fits is checked when it is read")
    restarts = _load_outline(cfg, args, model, path)
    if restarts:
        return Finding("warning", "weights", restarts)
    return _fact(f"{os.path.abspath(path)} fits the network")


def _load_outline(cfg: CfgNode, args: argparse.Namespace, model: nn.Module, path: str) -> str:
    """Load names and shapes; return what starts anew because the classes differ."""
    sets = cfg.DATASETS.TEST if args.eval_only else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    checkpointer = build_checkpointer(cfg, model, sets, strict=args.eval_only)
    names = ("checkpoint.checkpointer", "checkpoint.matching", "checkpoint.classes")
    silence = _silence(*(f"d2_isonet.{name}" for name in names), "detectron2.checkpoint")
    with silence, refusals_of_libraries(f"{path} cannot be loaded"):
        checkpointer.load(path, None if args.resume else [])
    return checkpointer.restarts


def _fact(what: str) -> Finding:
    return Finding("fact", "weights", what)


@contextlib.contextmanager
def _silence(*names: str) -> Iterator[None]:
    """Silence these loggers: the real load logs the same."""
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def output_findings(
    cfg: CfgNode, args: argparse.Namespace, model: nn.Module | None
) -> Iterator[Finding]:
    """The findings on cfg.OUTPUT_DIR; no file is left there.

    Args:
        model: the network of cfg, on any device; None to skip the check of free space.
    """
    if not cfg.OUTPUT_DIR:
        yield Finding("error", "OUTPUT_DIR", "it is empty", "set it to a folder for the run")
        return
    folder = Path(os.path.abspath(os.path.expanduser(cfg.OUTPUT_DIR)))
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    problem = _why_not_writable(there)
    if problem:
        what = f"{folder} cannot be written to ({problem})"
        yield Finding("error", "OUTPUT_DIR", what, "set OUTPUT_DIR to another folder")
        return
    for file in filter(Path.exists, map(folder.joinpath, _WRITTEN)):
        if problem := why_not_regular(file):
            yield Finding(
                "error", "OUTPUT_DIR", f"{file} cannot be written: {problem}", "remove it"
            )
    if args.eval_only or model is None:
        return
    yield _room(cfg, folder, there, model)
    files = [] if args.resume else checkpoints_in(folder)
    of_config = Path(os.path.abspath(getattr(args, "config_file", ""))).parent
    if args.resume and not checkpoints_in(folder) and checkpoints_in(of_config):
        what = f"{folder} has no checkpoint to resume, but the folder of --config-file has"
        yield Finding("error", "OUTPUT_DIR", what, f"add OUTPUT_DIR {of_config}")
    if files:
        what = f"{folder} holds an earlier run's {files[-1]}, and this one starts at iteration 0"
        remedy = "add --resume to continue it, or name another folder"
        yield Finding("warning", "OUTPUT_DIR", what, remedy)


def _why_not_writable(there: Path) -> str | None:
    if not there.is_dir():
        return f"{there} is no folder"
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        return f"{there}: {error.strerror}"
    return None


def _room(cfg: CfgNode, folder: Path, there: Path, model: nn.Module) -> Finding:
    one, free = _checkpoint_bytes(model, cfg.SOLVER.OPTIMIZER), shutil.disk_usage(there).free
    written = cfg.SOLVER.MAX_ITER // max(1, cfg.SOLVER.CHECKPOINT_PERIOD) + 1
    kept = min(written, cfg.SOLVER.CHECKPOINT_MAX_TO_KEEP or written)
    what = f"{free / 1e9:.3g} GB are free in {folder}, for {kept} checkpoints of {one / 1e6:.3g} MB"
    if free >= min(written, kept + 1) * one:  # a new one is written before an old one is removed
        return Finding("fact", "OUTPUT_DIR", what)
    remedy = "make room, keep fewer (SOLVER.CHECKPOINT_MAX_TO_KEEP) or set OUTPUT_DIR elsewhere"
    return Finding("error" if free < one else "warning", "OUTPUT_DIR", what, remedy)


def _checkpoint_bytes(model: nn.Module, optimizer: str) -> int:
    """Bytes of a checkpoint: every tensor of the model, and those of the optimizer."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return bytes_of(model.state_dict()) + _MOMENTS.get(optimizer, 1) * bytes_of(trained)
