"""Checks that the output folder can be written to, has room, and holds no earlier run."""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from detectron2.config import CfgNode
from torch import nn

from .findings import Finding

_WHERE = "OUTPUT_DIR"
_MOMENTS = {"SGD": 1, "Adam": 2}  # tensors of the optimizer for each trained tensor


def output_findings(
    cfg: CfgNode, args: argparse.Namespace, model: nn.Module | None
) -> list[Finding]:
    """The findings on cfg.OUTPUT_DIR; no file is left there.

    Args:
        model: the network of cfg, on any device; None to skip the check of free space.
    """
    if not cfg.OUTPUT_DIR:
        return []
    folder = Path(os.path.abspath(os.path.expanduser(cfg.OUTPUT_DIR)))
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    problem = _why_not_writable(there)
    if problem:
        what = f"{folder} cannot be written to ({problem})"
        return [Finding("error", _WHERE, what, "set OUTPUT_DIR to another folder")]
    if args.eval_only or model is None:
        return []
    return [*_room(cfg, folder, there, model), *_earlier_run(folder, args.resume)]


def _why_not_writable(there: Path) -> str | None:
    if not there.is_dir():
        return f"{there} is no folder"
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        return f"{there}: {error.strerror}"
    return None


def checkpoint_bytes(model: nn.Module, optimizer: str) -> int:
    """Bytes of a checkpoint: every tensor of the model, and those of the optimizer."""
    whole = sum(x.numel() * x.element_size() for x in model.state_dict().values())
    trained = [p for p in model.parameters() if p.requires_grad]
    return whole + _MOMENTS.get(optimizer, 1) * sum(p.numel() * p.element_size() for p in trained)


def _room(cfg: CfgNode, folder: Path, there: Path, model: nn.Module) -> list[Finding]:
    one, free = checkpoint_bytes(model, cfg.SOLVER.OPTIMIZER), shutil.disk_usage(there).free
    written = cfg.SOLVER.MAX_ITER // max(1, cfg.SOLVER.CHECKPOINT_PERIOD) + 1
    kept = min(written, cfg.SOLVER.CHECKPOINT_MAX_TO_KEEP or written)
    what = f"{free / 1e9:.3g} GB are free in {folder}, for {kept} checkpoints of {one / 1e6:.3g} MB"
    remedy = "make room, keep fewer (SOLVER.CHECKPOINT_MAX_TO_KEEP) or set OUTPUT_DIR elsewhere"
    if free < one:
        return [Finding("error", _WHERE, what, remedy)]
    if free < min(written, kept + 1) * one:  # a new one is written before an old one is removed
        return [Finding("warning", _WHERE, what, remedy)]
    return [Finding("fact", _WHERE, what)]


def checkpoints_in(folder: str | os.PathLike) -> list[str]:
    """Sorted names of the checkpoints in a folder, "model_final.pth" last; [] without folder."""
    return sorted(path.name for path in Path(folder).glob("model_*.pth"))


def _earlier_run(folder: Path, resumes: bool) -> list[Finding]:
    files = checkpoints_in(folder)
    if resumes or not files:
        return []
    what = f"{folder} holds an earlier run's {files[-1]}, and this one starts at iteration 0"
    return [Finding("warning", _WHERE, what, "add --resume to continue it, or name another folder")]
