"""Compares weights with the network, by names and shapes, before either takes memory."""

import argparse
import contextlib
import logging
import os
from collections.abc import Iterator

from detectron2.config import CfgNode
from torch import nn

from d2_isonet.checkpoint.checkpointer import ISONetCheckpointer, describe, require_file
from d2_isonet.checkpoint.reading import is_read_by_detectron2, what_is_wrong
from d2_isonet.utils.messages import UserError, refusals_of_libraries

from .findings import Finding
from .output_folder import checkpoints_in


def nothing_to_evaluate(cfg: CfgNode) -> ValueError:
    """The error of --eval-only without weights."""
    return UserError(
        "--eval-only with MODEL.WEIGHTS '' would evaluate random weights",
        f"name a file, or add --resume to take the last checkpoint of {cfg.OUTPUT_DIR}",
    )


_WHERE = "weights"


def weights_findings(
    cfg: CfgNode, args: argparse.Namespace, model: nn.Module | None
) -> list[Finding]:
    """What a training or an evaluation would start from.

    Args:
        model: the network of cfg on the meta device; None to check only the kind of the file.

    Raises:
        UserError: there is nothing to evaluate, no such file, or the file holds no weights or
            weights that do not fit.
    """
    path = cfg.MODEL.WEIGHTS
    if args.resume and checkpoints_in(cfg.OUTPUT_DIR):
        return [Finding("fact", _WHERE, f"--resume takes the last checkpoint of {cfg.OUTPUT_DIR}")]
    if not path:
        return [_from_initialization(cfg, args)]
    if "://" in path:
        return [Finding("fact", _WHERE, f"{path} is checked after its download")]
    require_file(path)
    problem = what_is_wrong(path, args.trust_pickle)
    if problem:
        raise UserError(f"{os.path.abspath(path)} {problem}")
    if model is None or is_read_by_detectron2(path):
        return [Finding("fact", _WHERE, f"whether {path} fits is checked when it is read")]
    checkpointer = ISONetCheckpointer(
        model,
        expected_meta=describe(cfg),
        strict=args.eval_only,
        from_conv2d=cfg.MODEL.DECOUPLED.FROM_CONV2D,
    )
    silence = _silence("d2_isonet.checkpoint.checkpointer", "detectron2.checkpoint")
    with silence, refusals_of_libraries(f"{path} cannot be loaded"):
        checkpointer.load(path, [])
    return [Finding("fact", _WHERE, f"{os.path.abspath(path)} fits the network")]


def _from_initialization(cfg: CfgNode, args: argparse.Namespace) -> Finding:
    """The finding if no weights are named; raises UserError if weights are needed."""
    if args.eval_only:
        raise nothing_to_evaluate(cfg)
    if cfg.MODEL.DECOUPLED.FROM_CONV2D:
        raise UserError(
            "MODEL.DECOUPLED.FROM_CONV2D is True, but MODEL.WEIGHTS is ''",
            "name the weights of the same network with ordinary convolutions, or set it to False",
        )
    return Finding("fact", _WHERE, "MODEL.WEIGHTS is '': all start from initialization")


@contextlib.contextmanager
def _silence(*names: str) -> Iterator[None]:
    """Silence these loggers: the real load logs the same."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
