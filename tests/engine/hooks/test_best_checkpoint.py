"""The best checkpoint and early stopping: which value is better, and what survives a resume."""

import math

import pytest
import torch
from detectron2.utils import comm
from small_runs import load, run, small_config, trainer_class, weights

from d2_isonet.distributed.launch import launch
from d2_isonet.engine.hooks.averaging import averaging_of
from d2_isonet.engine.hooks.best_checkpoint import BestCheckpoint
from d2_isonet.utils.files import SaveError

BEST = ("TEST.BEST_METRIC", "toy/score", "TEST.EVAL_PERIOD", "1", "DATASETS.TEST", "('toy',)")


def best_of(trainer) -> BestCheckpoint:
    return next(hook for hook in trainer._hooks if isinstance(hook, BestCheckpoint))


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [
        ("max", [1, 3, 2, 3, 0, 1], 1),
        ("max", [math.nan, 2, math.nan, 1, math.inf, 0], 1),
        ("min", [5, 4, math.nan, 2, -math.inf, 3], 3),
        ("max", [math.nan] * 6, None),
    ],
)
def test_the_best_is_the_first_of_the_best_finite_values(mode, scores, best, tmp_path):
    opts = (*BEST, "TEST.BEST_METRIC_MODE", mode)
    trainer = run(small_config(tmp_path, *opts), trainer_class(scores=scores))
    assert best_of(trainer).best() == (None if best is None else (best, scores[best]))
    if best is None:
        assert not (tmp_path / "model_best.pth").exists()
    else:
        assert load(tmp_path / "model_best.pth")["trainer"]["iteration"] == best


def test_the_best_checkpoint_has_the_weights_that_were_evaluated(tmp_path):
    trainer = run(small_config(tmp_path, *BEST), trainer_class(scores=[1, 3, 2, 0, 0, 0]))
    saved = load(tmp_path / "model_best.pth")["model"]["backbone.0.weight"]
    assert torch.equal(saved, trainer.evaluated[1])


def test_the_last_evaluation_may_be_the_best(tmp_path):
    trainer = run(small_config(tmp_path, *BEST), trainer_class(scores=[0, 1, 2, 3, 4, 5]))
    content = load(tmp_path / "model_best.pth")
    assert content["trainer"]["iteration"] == content["iteration"] == 5
    assert torch.equal(content["model"]["backbone.0.weight"], weights(trainer.model)[0])


def test_last_checkpoint_stays_where_it_is(tmp_path):
    class Looking(trainer_class(scores=[1, 2, 3, 4, 5, 6])):
        def after_step(self):
            super().after_step()
            if self.iter == 4:
                self.tag = self.checkpointer.get_checkpoint_file()

    trainer = run(small_config(tmp_path, *BEST), Looking)
    assert trainer.tag.endswith("model_0000003.pth")
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_a_resumed_run_remembers_the_best(tmp_path):
    first = small_config(tmp_path, *BEST, "SOLVER.MAX_ITER", "3")
    run(first, trainer_class(scores=[1, 7, 2]))
    resumed = run(small_config(tmp_path, *BEST), trainer_class(scores=[5, 6, 3]), resume=True)
    assert best_of(resumed).history == [(0, 1), (1, 7), (2, 2), (3, 5), (4, 6), (5, 3)]
    assert load(tmp_path / "model_best.pth")["trainer"]["iteration"] == 1


def test_an_evaluation_after_the_checkpoint_of_its_iteration_is_remembered(tmp_path):
    class Killed(trainer_class(scores=[1, 2, 3, 9])):
        def after_step(self):
            super().after_step()
            if self.iter == 3:  # model_0000003.pth was written before this evaluation
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(small_config(tmp_path, *BEST), Killed)
    resumed = run(small_config(tmp_path, *BEST), trainer_class(scores=[4, 5, 5]), resume=True)
    assert best_of(resumed).best() == (3, 9)
    assert load(tmp_path / "model_best.pth")["trainer"]["iteration"] == 3


def test_an_unknown_metric_ends_the_first_evaluation_with_the_choices(tmp_path):
    cfg = small_config(tmp_path, *BEST, "TEST.BEST_METRIC", "toy/scores")
    with pytest.raises(ValueError, match=r"toy/scores.*\['toy/score'\]; did you mean toy/score"):
        run(cfg, trainer_class())


def test_an_evaluation_that_a_full_disk_lost_is_not_the_best(tmp_path):
    class Lost(trainer_class(scores=[1, 2, 9])):
        @classmethod
        def test(cls, cfg, model, evaluators=None):
            results = super().test(cfg, model)
            return {} if len(cls.evaluated) == 3 else results

    trainer = run(small_config(tmp_path, *BEST, "SOLVER.MAX_ITER", "3"), Lost)
    assert best_of(trainer).best() == (1, 2.0)


def test_another_metric_starts_anew(tmp_path, caplog):
    run(small_config(tmp_path, *BEST, "SOLVER.MAX_ITER", "3"), trainer_class(scores=[1, 7, 2]))

    class Other(trainer_class()):
        @classmethod
        def test(cls, cfg, model, evaluators=None):
            return {"toy": {"other": 4.0}}

    cfg = small_config(tmp_path, *BEST, "TEST.BEST_METRIC", "toy/other")
    # the resumed run evaluates the last saved step again
    assert best_of(run(cfg, Other, resume=True)).best() == (2, 4.0)
    assert "was 'toy/score' and is 'toy/other' now" in caplog.text


def test_with_an_average_the_best_checkpoint_is_the_average_that_was_evaluated(tmp_path, caplog):
    caplog.set_level("INFO")
    trainer = run(
        small_config(tmp_path, *BEST, "SOLVER.EMA_DECAY", "0.5"),
        trainer_class(scores=[1, 3, 2, 0, 0, 0]),
    )
    content = load(tmp_path / "model_best.pth")
    saved = content["model"]["backbone.0.weight"]
    assert torch.equal(saved, trainer.evaluated[1]) and content["iteration"] == 1
    assert "trainer" not in content and not (tmp_path / "model_best_ema.pth").exists()
    assert '"weights": "average"' in (tmp_path / "model_best.json").read_text()
    assert "Evaluating the average of the weights (SOLVER.EMA_DECAY 0.5)" in caplog.text
    assert not torch.equal(saved, weights(averaging_of(trainer).model)[0])


def test_a_full_disk_does_not_end_the_training(tmp_path, caplog):
    class Full(trainer_class(scores=[1, 2, 3, 4, 5, 6])):
        def __init__(self, cfg):
            super().__init__(cfg)
            save = self.checkpointer.save

            def save_or_not(name, **extra):
                if name == "model_best":
                    raise SaveError("model_best.pth could not be written: No space left on device")
                save(name, **extra)

            self.checkpointer.save = save_or_not

    assert run(small_config(tmp_path, *BEST), Full).iter == 6
    assert "model_best.pth could not be written: No space left on device. The best" in caplog.text


PATIENCE = (*BEST, "TEST.EARLY_STOPPING_PATIENCE", "2")


def test_a_training_that_stands_still_ends_well(tmp_path):
    cfg = small_config(tmp_path, *PATIENCE, "SOLVER.EMA_DECAY", "0.5")
    trainer = run(cfg, trainer_class(scores=[1, 3, 2, 3, 9, 9]))
    assert trainer.iter == trainer.max_iter == 4
    assert len(trainer.evaluated) == 4  # no second one at the end
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert load(tmp_path / "model_final.pth")["trainer"]["iteration"] == 3
    assert (tmp_path / "model_final_ema.pth").exists()
    assert '"toy/score": 3' in (tmp_path / "metrics.json").read_text().splitlines()[-1]


def test_a_better_evaluation_starts_the_waiting_anew(tmp_path):
    trainer = run(small_config(tmp_path, *PATIENCE), trainer_class(scores=[1, 0, 2, 1, 3, 2]))
    assert trainer.iter == 6


def test_the_waiting_goes_on_in_a_resumed_run(tmp_path):
    cfg = small_config(tmp_path, *PATIENCE, "SOLVER.MAX_ITER", "3")
    run(cfg, trainer_class(scores=[1, 3, 2]))
    resumed = run(small_config(tmp_path, *PATIENCE), trainer_class(scores=[2, 9]), resume=True)
    assert resumed.iter == 4


def test_a_run_that_was_stopped_stays_so_until_it_may_wait_longer(tmp_path, caplog):
    run(small_config(tmp_path, *PATIENCE), trainer_class(scores=[3, 2, 1]))
    caplog.set_level("INFO", "d2_isonet")
    again = run(small_config(tmp_path, *PATIENCE), trainer_class(), resume=True)
    assert again.iter == again.max_iter == 3
    assert "none of 2 evaluations (TEST.EARLY_STOPPING_PATIENCE) was better than" in caplog.text
    more = small_config(tmp_path, *PATIENCE, "TEST.EARLY_STOPPING_PATIENCE", "4")
    assert run(more, trainer_class(scores=[0, 4, 0]), resume=True).iter == 6


def test_a_training_that_stops_early_waits_for_room(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr("d2_isonet.utils.files.time.sleep", waited.append)

    class Full(trainer_class(scores=[3, 2, 1])):
        def __init__(self, cfg):
            super().__init__(cfg)
            save = self.checkpointer.save

            def save_or_not(name, **extra):
                if name == "model_final" and not waited:
                    raise SaveError("model_final.pth was not written")
                save(name, **extra)

            self.checkpointer.save = save_or_not

    assert run(small_config(tmp_path, *PATIENCE), Full).iter == 3
    assert waited == [60.0]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def stop_early(output_dir) -> None:
    trainer = run(small_config(output_dir, *PATIENCE), trainer_class(scores=[3, 2, 1, 9]))
    assert trainer.iter == 3, comm.get_rank()


@pytest.mark.usefixtures("fork_server")
def test_several_processes_stop_together(tmp_path):
    launch(stop_early, 2, args=(str(tmp_path),))
    assert load(tmp_path / "model_final.pth")["trainer"]["iteration"] == 2
