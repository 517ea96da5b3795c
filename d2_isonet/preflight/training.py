"""Validates the device and the keys of SOLVER and TEST before anything is built."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from torch import nn

from d2_isonet.config.options import (
    ACTIONS,
    PRECISIONS,
    check_name,
    check_range,
    conflict,
    value_of,
)
from d2_isonet.isometry.criterion import FORMS
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.utils.command_line import require_packages
from d2_isonet.utils.messages import UserError


def check_precision(precision: str) -> None:
    """Raise UserError unless `precision` is one of PRECISIONS."""
    check_name("SOLVER.AMP.PRECISION", precision, sorted(PRECISIONS))


# Numbers with a range: (least,), or (least, limit) for a number that must stay below the limit.
_FROM_ZERO = (
    *("BASE_LR", "BACKBONE_LR_FACTOR", "RESIDUAL_SCALE_LR_FACTOR", "SCALAR_BIAS_LR_FACTOR"),
    *("BIAS_LR_FACTOR", "WEIGHT_DECAY", "WEIGHT_DECAY_NORM", "WEIGHT_DECAY_SHIFT", "GAMMA"),
    *("WARMUP_ITERS", "WARMUP_FACTOR", "WARMUP_EPOCHS", "MAX_EPOCHS", "REFERENCE_WORLD_SIZE"),
    *("ORTHO_COEFF", "FILTER_ORTHO_COEFF", "WEIGHT_PROJECTION_PERIOD", "NON_FINITE.LIMIT"),
    "CHECKPOINT_MAX_TO_KEEP",
)
_RANGES: dict[str, tuple[float, ...]] = {
    **{f"SOLVER.{key}": (0,) for key in _FROM_ZERO},
    "SOLVER.EMA_DECAY": (0, 1),
    "SOLVER.MOMENTUM": (0, 1),
    "SOLVER.MAX_ITER": (1,),
    "SOLVER.CHECKPOINT_PERIOD": (1,),
    "SOLVER.CHECKPOINT_MAX_FAILURES": (1,),
    "TEST.EARLY_STOPPING_PATIENCE": (0,),
    "TEST.ISOMETRY_PERIOD": (0,),
    "TEST.CLASSIFICATION_BATCH_SIZE": (1,),
    "DATALOADER.NUM_WORKERS": (0,),
    "DATALOADER.SHARD_STREAMS": (0,),
    "DATASETS.CHECKED_IMAGES": (-1,),
    "INPUT.MAX_IMAGE_PIXELS": (1,),
}


def check_training_options(cfg: CfgNode) -> None:
    """Raise UserError, with the key and its legal values, for a value that no training can use."""
    solver, test = cfg.SOLVER, cfg.TEST
    check_name("SOLVER.NON_FINITE.ACTION", solver.NON_FINITE.ACTION, ACTIONS)
    check_name("TEST.BEST_METRIC_MODE", test.BEST_METRIC_MODE, ("max", "min"))
    check_name("SOLVER.ORTHO_FORM", solver.ORTHO_FORM, FORMS)
    for key, limits in _RANGES.items():
        if value_of(cfg, key) is not None:  # WEIGHT_DECAY_NORM and BIAS_LR_FACTOR may be
            check_range(key, value_of(cfg, key), *limits)
    for key in ("SOLVER.STEPS", "SOLVER.EPOCH_STEPS"):
        _check_milestones(key, value_of(cfg, key))
    _check_best_metric(cfg)
    if cfg.WANDB.ENABLED:
        require_packages("wandb", needed_by="WANDB.ENABLED True")


def check_filter_options(cfg: CfgNode, model: nn.Module) -> None:
    """Raise UserError if an option concerns decoupled filters and `model` has none."""
    if any(isinstance(module, DecoupledConv2d) for module in model.modules()):
        return
    for key in ("SOLVER.WEIGHT_PROJECTION_PERIOD", "SOLVER.FILTER_ORTHO_COEFF"):
        if value_of(cfg, key):
            remedy = "the model has no decoupled filters: set it to 0, or CONV to 'Decoupled'"
            raise conflict(cfg, key, "MODEL.ISONET.CONV", remedy)


def _check_milestones(key: str, steps: Sequence[int]) -> None:
    are_numbers = all(isinstance(step, int | float) for step in steps)
    if not are_numbers or list(steps) != sorted(steps) or min(steps, default=0) < 0:
        raise UserError(
            f"{key} is {steps}", "they must be numbers from 0, each at least the one before"
        )


def _check_best_metric(cfg: CfgNode) -> None:
    test, best = cfg.TEST, cfg.TEST.BEST_METRIC
    patience = f"TEST.EARLY_STOPPING_PATIENCE is {test.EARLY_STOPPING_PATIENCE}"
    if test.EARLY_STOPPING_PATIENCE and not best:
        what = f"{patience}, but TEST.BEST_METRIC '' names nothing to wait for"
        raise UserError(what, "set it, e.g. bbox/AP or classification/top1")
    if best and not cfg.DATASETS.TEST:
        what = f"TEST.BEST_METRIC is {best!r}, but DATASETS.TEST is empty: nothing is evaluated"
        raise UserError(what, "name a data set, or set it to ''")
    if test.EARLY_STOPPING_PATIENCE and test.EVAL_PERIOD < 1 and cfg.SOLVER.MAX_EPOCHS < 1:
        what = f"{patience}, but TEST.EVAL_PERIOD is {test.EVAL_PERIOD}"
        raise UserError(what, "give the iterations between evaluations")


def check_device(cfg: CfgNode) -> None:
    """Raise UserError if MODEL.DEVICE is no device, or a GPU that this machine does not have."""
    name = cfg.MODEL.DEVICE
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"MODEL.DEVICE is {name!r}", "it must be 'cpu', 'cuda' or 'cuda:N'"
        ) from error
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise UserError(f"MODEL.DEVICE is {name!r}", f"this machine has {gpus} GPUs, from 0")
