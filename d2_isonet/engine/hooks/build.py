"""All hooks of a training, including detectron2's, in the order in which they run."""

import functools
import logging
import random
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer, PeriodicWriter
from detectron2.utils import comm

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.data.sampling import seed_of
from d2_isonet.engine.writers import write_evaluation
from d2_isonet.evaluation.per_class import evaluated_weights
from d2_isonet.isometry.decoupled_filters import FilterOrthogonalRegularizer, WeightProjection
from d2_isonet.isometry.monitor import IsometryMonitor
from d2_isonet.isometry.regularizer import OrthogonalRegularizer

from .averaging import WeightAveraging, averaging_of
from .best_checkpoint import BestCheckpoint
from .checkpointing import CheckpointHook
from .non_finite import NonFiniteRecovery

logger = logging.getLogger(__name__)


class StepSeed(HookBase):
    """Seeds the random numbers of every step (dropout, sampled proposals, mixup, ...).

    No generator's state needs to be saved, on any process or GPU. Numbers that an evaluation or a
    hook draws between two steps change neither later steps nor a resumed run.
    """

    def before_step(self) -> None:
        seed = seed_of(self.trainer.seed, "step", self.trainer.iter, comm.get_rank())
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)  # also seeds the GPUs


def ordered_hooks(
    trainer: DefaultTrainer,
    of_detectron2: Sequence[HookBase | None],
    after_evaluation: Sequence[HookBase] = (),
) -> list[HookBase]:
    """The hooks of `trainer`: change the weights, then check, average, save and evaluate them.

    Args:
        of_detectron2: DefaultTrainer's hooks. Those for checkpoints and evaluation are replaced.
            Those that time steps, set the learning rate and recompute BN statistics stay, and so
            do the writers, which only the main process has.
        after_evaluation: hooks that use the results of the evaluation.
    """
    cfg = trainer.cfg
    replaced = PeriodicCheckpointer | EvalHook
    theirs = [hook for hook in of_detectron2 if hook is not None and not isinstance(hook, replaced)]
    writers = [hook for hook in theirs if isinstance(hook, PeriodicWriter)]
    return [
        *_step_hooks(cfg),
        *(hook for hook in theirs if hook not in writers),
        *_weights_hooks(trainer),
        *after_evaluation,
        *writers,  # of all metrics
    ]


def _step_hooks(cfg: CfgNode) -> list[HookBase]:
    """Recovery, seed, and the penalties and projections; each validates its own options."""
    solver = cfg.SOLVER
    action, limit = solver.NON_FINITE.ACTION, solver.NON_FINITE.LIMIT
    hooks: list[HookBase] = [
        NonFiniteRecovery(cfg.OUTPUT_DIR, action, limit, period=solver.CHECKPOINT_PERIOD),
        StepSeed(),
    ]
    if solver.FILTER_ORTHO_COEFF != 0:
        hooks.append(FilterOrthogonalRegularizer(solver.FILTER_ORTHO_COEFF))
    if solver.WEIGHT_PROJECTION_PERIOD != 0:
        hooks.append(WeightProjection(solver.WEIGHT_PROJECTION_PERIOD))
    if solver.ORTHO_COEFF != 0:
        hooks.append(OrthogonalRegularizer(solver.ORTHO_COEFF, solver.ORTHO_FORM))
    if solver.ORTHO_COEFF > 0 and cfg.MODEL.ISONET.CONV == "Decoupled":
        logger.warning(
            f"SOLVER.ORTHO_COEFF is {solver.ORTHO_COEFF} with MODEL.ISONET.CONV 'Decoupled': this "
            "penalty acts on filters whose length has no effect; use SOLVER.FILTER_ORTHO_COEFF"
        )
    return hooks


def _weights_hooks(trainer: DefaultTrainer) -> list[HookBase]:
    """What measures, averages, saves and evaluates the new weights, and changes none of them."""
    cfg, solver, test = trainer.cfg, trainer.cfg.SOLVER, trainer.cfg.TEST
    attempts = solver.CHECKPOINT_MAX_FAILURES
    hooks: list[HookBase] = []
    if test.ISOMETRY_PERIOD:
        hooks.append(IsometryMonitor(test.ISOMETRY_PERIOD))
    if solver.EMA_DECAY:
        make = functools.partial(build_checkpointer, cfg)
        hooks.append(WeightAveraging(trainer.model, solver.EMA_DECAY, make, attempts=attempts))
    period, kept = solver.CHECKPOINT_PERIOD, solver.CHECKPOINT_MAX_TO_KEEP
    hooks.append(CheckpointHook(trainer.checkpointer, period, kept, attempts))
    # after the checkpoint, because an evaluation may fail
    hooks.append(EvalHook(test.EVAL_PERIOD, _evaluation(trainer)))
    if test.BEST_METRIC:
        best = BestCheckpoint(
            cfg.OUTPUT_DIR,
            test.BEST_METRIC,
            mode=test.BEST_METRIC_MODE,
            patience=test.EARLY_STOPPING_PATIENCE,
            period=test.EVAL_PERIOD,
            attempts=attempts,
        )
        hooks.append(best)
    return hooks


def _evaluation(trainer: DefaultTrainer) -> Callable[[], dict]:
    """A function that evaluates the weights of `trainer`, or their average if it keeps one.

    It evaluates once per iteration: a training that ends early calls it in its last step and again
    at its end.
    """
    trainer = weakref.proxy(trainer)

    @functools.lru_cache(maxsize=1)
    def evaluate_after(iterations: int) -> dict:
        averaging = averaging_of(trainer)
        model = trainer.model if averaging is None else averaging.model
        average = f"the average of the weights (SOLVER.EMA_DECAY {trainer.cfg.SOLVER.EMA_DECAY:g})"
        with evaluated_weights("the trained weights" if averaging is None else average):
            trainer._last_eval_results = trainer.test(trainer.cfg, model)
        write_evaluation(trainer, trainer._last_eval_results)
        return trainer._last_eval_results

    return lambda: evaluate_after(min(trainer.iter + 1, trainer.max_iter))
