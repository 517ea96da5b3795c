"""The best checkpoint by one metric of the evaluation, and early stopping.

detectron2's BestCheckpointer forgets the best value when a run resumes, moves last_checkpoint, and
treats an unknown metric as a missing one.
"""

import json
import logging
import math
from pathlib import Path

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from d2_isonet.config.options import check_name
from d2_isonet.utils.files import read_json, tolerate, write_text, write_when_possible

from .averaging import averaging_of

logger = logging.getLogger(__name__)


class TrainingEnded(BaseException):
    """Ends detectron2's loop early. It is no Exception: the loop logs those as failures."""


class BestCheckpoint(HookBase):
    """Writes model_best.pth at every evaluation that is better than all before it.

    It holds the network that was evaluated: if the weights are averaged, the average alone, from
    which no training resumes. last_checkpoint does not change. Equal, NaN and infinite values are
    not better.

    The trainer's state and model_best.json keep all evaluations. A resumed run needs the file,
    because a checkpoint is written before the evaluation of its iteration.

    Args:
        metric: its name in the log and in metrics.json, "bbox/AP" or "classification/top1".
        mode: "max" if higher values are better, "min" if lower ones are.
        patience: number of evaluations in a row without a better one that ends the training; 0
            never ends it.
        period: EvalHook's iterations between evaluations. Register this hook after EvalHook.
        attempts: how often to try writing model_final.pth if the disk is full, a minute apart.
    """

    def __init__(
        self,
        output_dir: str,
        metric: str,
        *,
        mode: str = "max",
        patience: int = 0,
        period: int = 0,
        attempts: int = 20,
    ):
        check_name("TEST.BEST_METRIC_MODE", mode, ("max", "min"))
        self.path = Path(output_dir) / "model_best.json"
        self.metric = metric
        self.sign = 1 if mode == "max" else -1
        self.patience = patience
        self.period = period
        self.attempts = attempts
        self.history: list[tuple[int, float]] = []  # (last trained iteration, value)

    def best(self) -> tuple[int, float] | None:
        """(iteration, value) of the first of the best evaluations; None if no value is finite."""
        finite = [pair for pair in self.history if math.isfinite(pair[1])]
        return max(finite, key=lambda pair: self.sign * pair[1], default=None)

    def has_seen(self, iteration: int) -> bool:
        """True if the evaluation after `iteration` is in the history."""
        return bool(self.history) and self.history[-1][0] >= iteration

    def evaluations_since_best(self) -> int:
        best = self.best()
        return len(self.history) - (0 if best is None else self.history.index(best) + 1)

    def before_train(self) -> None:
        if self.trainer.start_iter == 0:
            return
        self._add_recorded()
        if self._is_standing_still():  # it had stopped, or the patience is shorter now
            self.trainer.iter = self.trainer.start_iter - 1
            self._end_training()

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if not self.period or done % self.period or done == self.trainer.max_iter:
            return  # EvalHook has not evaluated
        self._judge(self.trainer.iter)
        if self._is_standing_still():
            self._end_training()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # not after a step that raised
            self._judge(self.trainer.max_iter - 1)

    def _is_standing_still(self) -> bool:
        return 0 < self.patience <= self.evaluations_since_best()

    def _end_training(self) -> None:
        trainer = self.trainer
        logger.info(
            f"Stopped early after iteration {trainer.iter}: none of {self.patience} evaluations "
            f"(TEST.EARLY_STOPPING_PATIENCE) was better than {self._describe(self.best())}"
        )
        if comm.is_main_process():
            write_when_possible(
                lambda: trainer.checkpointer.save("model_final", iteration=trainer.iter),
                self.attempts,
            )
        trainer.max_iter = trainer.iter = trainer.iter + 1  # as after the last iteration
        raise TrainingEnded

    def _judge(self, iteration: int) -> None:
        """Add the evaluation after `iteration` to the history, once, and save the best."""
        if self.has_seen(iteration):
            return
        before = self.best()
        self.history.append((iteration, self._value()))
        if self.best() != before:
            logger.info(
                f"Best so far: {self._describe(self.best())}; before: {self._describe(before)}"
            )
            if comm.is_main_process():
                self._save(iteration)
        if comm.is_main_process():
            with tolerate(self.path, "A run resumed from before this evaluation repeats it"):
                average = "trained" if averaging_of(self.trainer) is None else "average"
                write_text(self.path, json.dumps({**self.state_dict(), "weights": average}))

    def _value(self) -> float:
        """The metric's value in the last evaluation; NaN if a full disk lost the results.

        Only the main process has the results.

        Raises:
            UserError: there is no such metric. All processes raise it.
        """
        results = flatten_results_dict(getattr(self.trainer, "_last_eval_results", None) or {})
        value, names = comm.all_gather((results.get(self.metric), list(results)))[0]
        if not names:
            return math.nan
        if value is None:
            check_name("TEST.BEST_METRIC", self.metric, names)
        return float(value)

    def _save(self, iteration: int) -> None:
        averaging = averaging_of(self.trainer)
        with tolerate("model_best.pth", "The best checkpoint stays as it was"):
            if averaging is None:
                self.trainer.checkpointer.save("model_best", tag=False, iteration=iteration)
            else:
                averaging.save("model_best", iteration=iteration)

    def _add_recorded(self) -> None:
        """Add the evaluations that model_best.json has from after the checkpoint was written."""
        recorded = comm.all_gather(_read(self.path) if comm.is_main_process() else {})[0]
        if recorded.get("metric") == self.metric:
            last = self.history[-1][0] if self.history else -1
            self.history += [
                (iteration, value)
                for iteration, value in recorded["history"]
                if last < iteration < self.trainer.start_iter
            ]

    def _describe(self, best: tuple[int, float] | None) -> str:
        return "none" if best is None else f"{self.metric} {best[1]:g} after iteration {best[0]}"

    def state_dict(self) -> dict:
        return {"metric": self.metric, "history": list(self.history)}

    def load_state_dict(self, state_dict: dict) -> None:
        if state_dict["metric"] != self.metric:
            logger.warning(
                f"TEST.BEST_METRIC was {state_dict['metric']!r} and is {self.metric!r} now: the "
                "search for the best checkpoint restarts"
            )
            return
        self.history = [tuple(pair) for pair in state_dict["history"]]


def _read(path: Path) -> dict:
    if not path.exists():
        return {}
    try:
        record = read_json(path)
        history = record["history"]
        return {"metric": record["metric"], "history": [(int(i), float(x)) for i, x in history]}
    except (OSError, ValueError, TypeError, LookupError, OverflowError) as error:
        logger.warning(f"{path} is damaged ({error}): its evaluations are ignored")
        return {}
