"""metrics.json has every evaluation once, however a run was killed and resumed."""

import json
import os
import signal
from collections import Counter

import pytest
from child_processes import fork, wait
from detectron2.engine import HookBase
from small_runs import run, small_config, trainer_class

# A checkpoint every 2 steps, an evaluation every 3, of 12 steps: after 3, 6, 9 and at the end.
OPTIONS = ("TEST.EVAL_PERIOD", "3", "SOLVER.MAX_ITER", "12")
WHERE = [("before_step", 1), ("before_step", 4), ("before_step", 5), ("before_step", 10),
         ("after_step", 5), ("after_train", 12)]  # fmt: skip


class Killed(HookBase):
    """Ends this process as kill -9 does, after all other hooks."""

    def __init__(self, method: str, iteration: int):
        setattr(self, method, lambda: self.kill(iteration))

    def kill(self, iteration: int) -> None:
        if self.trainer.iter == iteration:
            os.kill(os.getpid(), signal.SIGKILL)


def entries(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def train(cfg, *hooks: HookBase) -> None:
    class Hooked(trainer_class()):
        def build_hooks(self) -> list[HookBase]:
            return [*super().build_hooks(), *hooks]

    run(cfg, Hooked, resume=True)


@pytest.mark.parametrize("best", ["", "toy/score"])
@pytest.mark.parametrize(("method", "iteration"), WHERE)
def test_every_evaluation_is_there_once(method, iteration, best, tmp_path):
    cfg = small_config(tmp_path / "run", *OPTIONS, "TEST.BEST_METRIC", best)
    code = wait(fork(lambda: train(cfg, Killed(method, iteration)), tmp_path / "log"))
    assert code == -signal.SIGKILL, (tmp_path / "log").read_text()
    for _ in range(2):  # the second one has nothing to train
        train(cfg)
        found = Counter((x["iteration"], k) for x in entries(tmp_path / "run") for k in x)
        assert set(found.values()) == {1}
        assert [i for i, name in found if name == "toy/score"] == [2, 5, 8, 12]


def test_a_line_that_a_kill_cut_off_goes_and_a_longer_training_keeps_the_last_evaluation(tmp_path):
    train(small_config(tmp_path, "SOLVER.MAX_ITER", "5", "TEST.EVAL_PERIOD", "3"))
    with open(tmp_path / "metrics.json", "a") as file:
        file.write('{"iteration": 5, "toy/sc')
    train(small_config(tmp_path, "SOLVER.MAX_ITER", "8", "TEST.EVAL_PERIOD", "3"))
    scores = [x["iteration"] for x in entries(tmp_path) if "toy/score" in x]
    assert scores == [2, 5, 8]


def test_a_run_without_a_checkpoint_sets_the_file_of_the_one_before_aside(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 3, "toy/score": 1}\n')
    train(small_config(tmp_path))
    assert [x["iteration"] for x in entries(tmp_path)] == [5, 6]
    assert json.loads((tmp_path / "metrics.earlier_1.json").read_text())["iteration"] == 3
