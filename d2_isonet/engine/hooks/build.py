"""All hooks of a training, detectron2's own among them, in the order in which they act."""

import logging
import random
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer, PeriodicWriter
from detectron2.utils import comm

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.data.sampling import seed_of
from d2_isonet.isometry.decoupled_filters import FilterOrthogonalRegularizer, WeightProjection
from d2_isonet.isometry.monitor import IsometryMonitor
from d2_isonet.isometry.regularizer import OrthogonalRegularizer

from .averaging import WeightAveraging, averaging_of
from .best_checkpoint import BestCheckpoint
from .checkpointing import CheckpointHook
from .non_finite import NonFiniteRecovery

logger = logging.getLogger(__name__)


class StepSeed(HookBase):
    """Every step's random numbers (dropout, sampled proposals, mixup, ...) from its own seed.

    So no generator's state needs to be saved, on any process or GPU, and what an evaluation or
    a hook draws between two steps changes neither the steps after it nor a resumed run.
    """

    def before_step(self) -> None:
        seed = seed_of(self.trainer.seed, "step", self.trainer.iter, comm.get_rank())
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)  # of the GPUs too


class Evaluation:
    """Evaluates a trainer's weights, or their average, once after each iteration it is asked at.

    A training that ends early is asked twice: by its last step, and at its end.
    """

    def __init__(self, trainer: DefaultTrainer):
        self._trainer: DefaultTrainer = weakref.proxy(trainer)
        self._iterations_done = 0

    def __call__(self) -> dict:
        trainer = self._trainer
        done = min(trainer.iter + 1, trainer.max_iter)
        if self._iterations_done != done:
            averaging = averaging_of(trainer)
            model = trainer.model if averaging is None else averaging.model
            trainer._last_eval_results = trainer.test(trainer.cfg, model)
            self._iterations_done = done
        return trainer._last_eval_results


def ordered_hooks(
    trainer: DefaultTrainer,
    of_detectron2: Sequence[HookBase | None],
    after_evaluation: Sequence[HookBase] = (),
) -> list[HookBase]:
    """The hooks of `trainer`: a step, then its weights looked at, averaged, saved and evaluated.

    Args:
        of_detectron2: DefaultTrainer's. Its checkpoints and evaluation give way to ours; those
            that time a step, set its learning rate and mend statistics of a BN stay, and so do
            those that write, which on all but the main process are none.
        after_evaluation: those that want its result.
    """
    cfg = trainer.cfg
    ours = PeriodicCheckpointer | EvalHook
    theirs = [hook for hook in of_detectron2 if hook is not None and not isinstance(hook, ours)]
    return [
        _non_finite_recovery(cfg),
        StepSeed(),
        *_penalties(cfg),
        *(hook for hook in theirs if not isinstance(hook, PeriodicWriter)),
        *_isometry_monitor(cfg),
        *_weight_averaging(trainer),  # the weights do not change any more in this step
        _saving(trainer),  # if an evaluation fails, nothing is lost
        EvalHook(cfg.TEST.EVAL_PERIOD, Evaluation(trainer)),
        *_best_checkpoint(cfg),
        *after_evaluation,
        *(hook for hook in theirs if isinstance(hook, PeriodicWriter)),  # of all metrics
    ]


def _non_finite_recovery(cfg: CfgNode) -> NonFiniteRecovery:
    options = cfg.SOLVER.NON_FINITE
    return NonFiniteRecovery(
        cfg.OUTPUT_DIR, options.ACTION, options.LIMIT, period=cfg.SOLVER.CHECKPOINT_PERIOD
    )


def _penalties(cfg: CfgNode) -> list[HookBase]:
    """What SOLVER asks of the weights; a negative coefficient is refused by name."""
    solver = cfg.SOLVER
    hooks: list[HookBase] = []
    if solver.FILTER_ORTHO_COEFF != 0:
        hooks.append(FilterOrthogonalRegularizer(solver.FILTER_ORTHO_COEFF))
    if solver.WEIGHT_PROJECTION_PERIOD != 0:
        hooks.append(WeightProjection(solver.WEIGHT_PROJECTION_PERIOD))
    if solver.ORTHO_COEFF != 0:
        hooks.append(OrthogonalRegularizer(solver.ORTHO_COEFF, solver.ORTHO_FORM))
    if solver.ORTHO_COEFF > 0 and cfg.MODEL.ISONET.CONV == "Decoupled":
        logger.warning(
            f"SOLVER.ORTHO_COEFF is {solver.ORTHO_COEFF} with MODEL.ISONET.CONV 'Decoupled': that "
            "penalty acts on filters whose length does not count; SOLVER.FILTER_ORTHO_COEFF is "
            "theirs"
        )
    return hooks


def _isometry_monitor(cfg: CfgNode) -> list[HookBase]:
    period = cfg.TEST.ISOMETRY_PERIOD
    return [IsometryMonitor(period)] if period else []


def _weight_averaging(trainer: DefaultTrainer) -> list[HookBase]:
    cfg = trainer.cfg
    if not cfg.SOLVER.EMA_DECAY:
        return []
    return [
        WeightAveraging(
            trainer.model,
            cfg.SOLVER.EMA_DECAY,
            lambda model: build_checkpointer(cfg, model),
            attempts=cfg.SOLVER.CHECKPOINT_MAX_FAILURES,
        )
    ]


def _saving(trainer: DefaultTrainer) -> CheckpointHook:
    solver = trainer.cfg.SOLVER
    return CheckpointHook(
        trainer.checkpointer,
        solver.CHECKPOINT_PERIOD,
        max_to_keep=solver.CHECKPOINT_MAX_TO_KEEP,
        max_failures=solver.CHECKPOINT_MAX_FAILURES,
    )


def _best_checkpoint(cfg: CfgNode) -> list[HookBase]:
    test = cfg.TEST
    if not test.BEST_METRIC:
        return []
    return [
        BestCheckpoint(
            cfg.OUTPUT_DIR,
            test.BEST_METRIC,
            mode=test.BEST_METRIC_MODE,
            patience=test.EARLY_STOPPING_PATIENCE,
            period=test.EVAL_PERIOD,
            attempts=cfg.SOLVER.CHECKPOINT_MAX_FAILURES,
        )
    ]
