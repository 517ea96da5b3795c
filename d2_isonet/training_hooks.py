"""The hooks around a step that cfg asks for, where they belong among detectron2's."""

import weakref
from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.engine.hooks import EvalHook, LRScheduler, PreciseBN
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from .averaging import WeightAveraging, averaging_of
from .best_checkpoint import BestCheckpoint
from .non_finite_recovery import NonFiniteRecovery


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


def add_training_hooks(
    trainer: DefaultTrainer,
    hooks: list[HookBase],
    make_checkpointer: Callable[[nn.Module], Checkpointer],
) -> list[HookBase]:
    """`hooks` with those for failed steps, the average of weights and the best checkpoint.

    Weights are looked at and averaged before they are saved and evaluated; the best is told after
    the evaluation, which is of the averaged weights where there are.
    """
    cfg = trainer.cfg
    is_evaluation = [isinstance(hook, EvalHook) for hook in hooks]
    changes_weights = [isinstance(hook, LRScheduler | PreciseBN) for hook in hooks]
    weights_are_final = len(hooks) - changes_weights[::-1].index(True)
    evaluation = is_evaluation.index(True)
    return [
        _non_finite_recovery(cfg),
        *hooks[:weights_are_final],
        *_weight_averaging(cfg, trainer.model, make_checkpointer),
        *hooks[weights_are_final:evaluation],
        EvalHook(cfg.TEST.EVAL_PERIOD, Evaluation(trainer)),
        *_best_checkpoint(cfg),
        *hooks[evaluation + 1 :],
    ]


def _non_finite_recovery(cfg: CfgNode) -> NonFiniteRecovery:
    options = cfg.SOLVER.NON_FINITE
    return NonFiniteRecovery(
        cfg.OUTPUT_DIR, options.ACTION, options.LIMIT, period=cfg.SOLVER.CHECKPOINT_PERIOD
    )


def _weight_averaging(cfg: CfgNode, model: nn.Module, make_checkpointer) -> list[HookBase]:
    decay = cfg.SOLVER.EMA_DECAY
    return [WeightAveraging(model, decay, make_checkpointer)] if decay else []


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
        )
    ]
