"""The order of all hooks of a training."""

from detectron2.engine import HookBase
from small_runs import SmallTrainer, small_config

EVERYTHING = [
    "SOLVER.FILTER_ORTHO_COEFF", "0.01", "SOLVER.WEIGHT_PROJECTION_PERIOD", "1",
    "SOLVER.EMA_DECAY", "0.9", "TEST.ISOMETRY_PERIOD", "100", "TEST.BEST_METRIC", "toy/score",
    "TEST.PRECISE_BN.ENABLED", "True", "MODEL.RESNETS.NORM", "BN",
]  # fmt: skip


class Late(HookBase):
    """A hook that a subclass adds."""


class LateTrainer(SmallTrainer):
    def hooks_after_evaluation(self) -> list[HookBase]:
        return [Late()]


def kinds(cfg) -> list[str]:
    return [type(hook).__name__ for hook in LateTrainer(cfg)._hooks]


def test_weights_are_changed_then_looked_at_averaged_saved_evaluated_and_written(tmp_path):
    assert kinds(small_config(tmp_path, *EVERYTHING)) == [
        "NonFiniteRecovery", "StepSeed", "FilterOrthogonalRegularizer", "WeightProjection",
        "OrthogonalRegularizer", "IterationTimer", "LRScheduler", "PreciseBN", "IsometryMonitor",
        "WeightAveraging", "CheckpointHook", "EvalHook", "BestCheckpoint", "Late", "PeriodicWriter",
    ]  # fmt: skip


def test_what_is_not_asked_for_is_not_there(tmp_path):
    assert kinds(small_config(tmp_path, "SOLVER.ORTHO_COEFF", "0.0")) == [
        "NonFiniteRecovery", "StepSeed", "IterationTimer", "LRScheduler", "CheckpointHook",
        "EvalHook", "Late", "PeriodicWriter",
    ]  # fmt: skip


def test_all_but_the_main_process_write_nothing_and_save_and_evaluate_like_it(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    assert kinds(small_config(tmp_path))[-3:] == ["CheckpointHook", "EvalHook", "Late"]
