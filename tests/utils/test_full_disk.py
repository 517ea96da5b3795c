"""A disk that is full for some steps costs files, each named in the log, but no training step.

The limit of a file's size, set to 0, stands for the disk; helpers/kill_harness.py --disk fills one.
"""

import io
import json
import logging
import os
import resource
import sys
from argparse import Namespace
from pathlib import Path

import fork_server
import pytest
import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import PeriodicWriter
from resumed_runs import STEPS, task, write_data

from d2_isonet.engine.main import evaluate_or_train, finish_setup
from d2_isonet.utils import files as full_disk
from d2_isonet.utils.files import SaveError, write_when_possible

FULL = range(2, 5)  # the steps in which nothing can be written; saved and evaluated after 1, 3, 5
OPTIONS = [
    "TEST.EVAL_PERIOD", "2", "TEST.BEST_METRIC", "made_up/score", "SOLVER.EMA_DECAY", "0.9",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "INPUT.MIN_SIZE_TEST", "48",
]  # fmt: skip
TOLD = [
    "model_0000003.pth could not be written: File too large. 1 failed in a row",
    "A file of JSONWriter could not be written: File too large. Lines of it may be missing",
    "A file of TensorboardWriter could not be written",
    "model_best.pth could not be written",
    "model_best.json could not be written",
]
TOLD_OF = {
    "detection": [
        "instances_predictions.pth could not be written: File too large. The evaluation",
        "coco_instances_results.json could not be written: File too large. The evaluation",
    ],
    "classification": ["backbone.pth could not be written: File too large. It is written again"],
}


class Limit(HookBase):
    """No file of this process can grow in the steps `full`."""

    def __init__(self, full: range):
        self.full = full

    def before_step(self) -> None:
        most = 0 if self.trainer.iter in self.full else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def limited(trainer_class: type, full: range) -> type:
    """`trainer_class` on such a disk; it logs every step, and every evaluation is a new best."""

    class Limited(trainer_class):
        scores: list[int] = []

        def build_hooks(self) -> list:
            hooks = super().build_hooks()
            next(x for x in hooks if isinstance(x, PeriodicWriter))._period = 1
            return [Limit(full), *hooks]

        @classmethod
        def test(cls, cfg, model, evaluators=None):
            cls.scores.append(len(cls.scores))
            return {**super().test(cfg, model), "made_up": {"score": cls.scores[-1]}}

    return Limited


def iterations(folder: Path) -> set[int]:
    """The iterations in metrics.json."""
    lines = (folder / "metrics.json").read_text().splitlines()
    return {x["iteration"] for x in map(json.loads, lines)}


class Lines(logging.Handler):
    """Keeps the messages."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def train(name: str, data: Path, folder: Path) -> None:
    """A run with such a disk, and one without; in a process of its own."""
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a file, under pytest
    sys.stderr = io.StringIO()
    log = Lines()
    logging.getLogger("d2_isonet").addHandler(log)
    for run, full in (("whole", range(0)), ("limited", FULL)):
        trainer_class, cfg = task(name, data, folder / run, 0, *OPTIONS)
        cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
        args = Namespace(resume=False, eval_only=False, trust_pickle=False, config_file="")
        evaluate_or_train(finish_setup(cfg, args, 5), args, limited(trainer_class, full))
    torch.save({"log": log.lines, "stderr": sys.stderr.getvalue()}, folder / "told")


@pytest.mark.parametrize("name", ["detection", "classification"])
def test_training_goes_on_without_the_files_and_says_which(name, tmp_path):
    write_data(tmp_path)
    fork_server.run(train, name, tmp_path, tmp_path)
    told = torch.load(tmp_path / "told", weights_only=True)
    text = "\n".join(told["log"])
    for message in [*TOLD, *TOLD_OF[name]]:
        assert message in text, f"{message!r} is not in {text}"
    assert told["stderr"].count("limited/log.txt could not be written: File too large") == 1
    whole, limited_run = tmp_path / "whole", tmp_path / "limited"
    for file in ("model_final.pth", "model_final_ema.pth", "model_best.pth", "model_0000005.pth"):
        ours, theirs = (torch.load(x / file, weights_only=True) for x in (limited_run, whole))
        for key, tensor in theirs["model"].items():
            assert torch.equal(ours["model"][key], tensor), (file, key)
    assert not list(limited_run.rglob("*.partial"))
    history = json.loads((limited_run / "model_best.json").read_text())["history"]
    assert history == [[1, 0.0], [3, 1.0], [5, 2.0]]
    assert iterations(whole) == {*range(STEPS), STEPS}  # the evaluation at the end has its own
    assert {0, 1, 5, 6} <= iterations(limited_run)
    assert (
        len(list(limited_run.glob("events.out.tfevents.*")))
        > 1
        == len(list(whole.glob("events.out.tfevents.*")))
    )


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_file_that_is_needed_is_waited_for(failures, monkeypatch, caplog):
    waited, left = [], [SaveError("a.pth was not written")] * failures
    monkeypatch.setattr(full_disk.time, "sleep", waited.append)

    def write():
        if left:
            raise left.pop()
        return "written"

    assert write_when_possible(write, attempts=3) == "written"
    assert waited == [60.0] * failures == [60.0] * caplog.text.count("a.pth was not written. Try")


def test_a_file_that_cannot_be_written_for_long_is_an_error(monkeypatch):
    monkeypatch.setattr(full_disk.time, "sleep", lambda seconds: None)

    def write():
        raise SaveError("a.pth was not written")

    with pytest.raises(SaveError, match="a.pth was not written$"):
        write_when_possible(write, attempts=3)
