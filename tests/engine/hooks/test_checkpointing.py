"""Checkpoints of a training: failed saves are repeated, old files removed, good ones kept."""

import errno
import logging
import shutil

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook
from detectron2.utils.events import EventStorage, EventWriter
from fvcore.common.checkpoint import Checkpointer
from two_convolutions import OwnShareTrainer, toy_config, train

from d2_isonet.engine.hooks.checkpointing import CheckpointHook
from d2_isonet.engine.writers import TolerantWriter
from d2_isonet.utils.files import SaveError


@pytest.fixture
def disk(monkeypatch):
    """A fake disk with disk["free"] bytes; a hook may change the number."""
    space = {"free": 10**12}
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=space["free"]))
    return space


class Fill(HookBase):
    """The disk is full in some iterations."""

    def __init__(self, disk: dict, iterations: set[int]):
        self.disk, self.iterations = disk, iterations

    def before_step(self) -> None:
        self.disk["free"] = 0 if self.trainer.iter in self.iterations else 10**12


def train_on(disk, full: set[int], cfg) -> OwnShareTrainer:
    trainer = OwnShareTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.register_hooks([Fill(disk, full)])
    trainer.train()
    return trainer


def saved(folder) -> list[str]:
    return sorted(p.name for p in folder.glob("*.pth"))


def test_training_goes_on_while_the_disk_is_full_and_is_saved_when_it_is_not(
    disk, tmp_path, caplog
):
    train_on(disk, {1}, toy_config(tmp_path))  # the save after iteration 1 is due
    assert saved(tmp_path) == ["model_0000002.pth", "model_0000003.pth", "model_final.pth"]
    assert "model_0000001.pth was not written: it needs 1 MB, its disk has 0 MB" in caplog.text
    assert "1 failed in a row, 20 end the training" in caplog.text
    assert "The newest checkpoint: none. Training continues" in caplog.text


def test_a_training_whose_saves_fail_too_often_ends(disk, tmp_path):
    opts = ["SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.CHECKPOINT_MAX_FAILURES", "2"]
    with pytest.raises(SaveError, match=r"2 failed in a row.*newest checkpoint: .*0000000\.pth"):
        train_on(disk, {1, 2, 3}, toy_config(tmp_path, *opts))
    assert saved(tmp_path) == ["model_0000000.pth"]


def test_the_last_save_waits_for_room(disk, tmp_path, monkeypatch, caplog):
    from d2_isonet.engine.hooks import checkpointing as checkpoint_hook

    waited = []

    def sleep(seconds):
        waited.append(seconds)
        disk["free"] = 10**12 if len(waited) == 2 else 0

    monkeypatch.setattr(checkpoint_hook.time, "sleep", sleep)
    train_on(disk, {3}, toy_config(tmp_path))
    assert waited == [60.0, 60.0]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_checkpoints_of_before_a_resume_are_removed_like_others(tmp_path):
    opts = ["SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.CHECKPOINT_MAX_TO_KEEP", "1"]
    train(toy_config(tmp_path, *opts, "SOLVER.MAX_ITER", "2"))
    (tmp_path / "model_best.pth").write_bytes(b"not the hook's")
    train(toy_config(tmp_path, *opts), resume=True)
    assert saved(tmp_path) == ["model_0000003.pth", "model_best.pth", "model_final.pth"]


def test_a_run_killed_before_its_last_file_gets_it_when_resumed(tmp_path):
    train(toy_config(tmp_path))
    expected = torch.load(tmp_path / "model_final.pth", weights_only=True)
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    train(toy_config(tmp_path), resume=True)
    found = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert found["iteration"] == found["trainer"]["iteration"] == expected["iteration"] == 3
    for name, value in expected["model"].items():
        assert torch.equal(found["model"][name], value)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_what_a_killed_save_left_is_removed_at_the_next_start(tmp_path):
    train(toy_config(tmp_path, "SOLVER.MAX_ITER", "2"))
    (tmp_path / "model_0000003.pth.partial").write_bytes(b"half of it")
    train(toy_config(tmp_path), resume=True)
    assert not list(tmp_path.glob("*.partial"))


def test_none_keeps_all_as_in_fvcore(tmp_path):
    checkpointer = Checkpointer(torch.nn.Linear(1, 1), str(tmp_path))
    assert CheckpointHook(checkpointer, 5, max_to_keep=None).max_to_keep is None


@pytest.mark.parametrize("arguments", [{"period": 0}, {"period": 5, "max_to_keep": -1}], ids=str)
def test_a_hook_that_would_keep_nothing_is_refused(arguments):
    with pytest.raises(ValueError, match="SOLVER.CHECKPOINT_PERIOD is .*MAX_TO_KEEP"):
        CheckpointHook(None, **arguments)


def test_the_checkpoint_s_hook_stands_before_the_evaluation_on_every_process(tmp_path):
    kinds = [type(hook) for hook in OwnShareTrainer(toy_config(tmp_path))._hooks]
    assert kinds.index(CheckpointHook) + 1 == kinds.index(EvalHook)
    assert kinds.count(CheckpointHook) == 1


class Counting(HookBase):
    """A hook with a state that depends on the evaluations."""

    def __init__(self):
        self.evaluations = 0

    def after_step(self) -> None:
        self.evaluations += self.trainer.iter % 2

    def state_dict(self) -> dict:
        return {"evaluations": self.evaluations}

    def load_state_dict(self, state: dict) -> None:
        self.evaluations = state["evaluations"]


class CountingTrainer(OwnShareTrainer):
    evaluated: list[int] = []

    def build_hooks(self) -> list:
        return [*super().build_hooks(), Counting()]

    def note_iteration(self) -> dict:
        self.evaluated.append(self.iter)
        return {}


def test_a_resumed_run_makes_up_for_the_evaluation_after_its_last_save(tmp_path):
    def run(cfg, resume):
        trainer = CountingTrainer(cfg)
        trainer.resume_or_load(resume=resume)
        next(x for x in trainer._hooks if isinstance(x, EvalHook))._func = trainer.note_iteration
        trainer.train()
        return trainer._hooks[-1].evaluations

    evaluate = ["TEST.EVAL_PERIOD", "2"]
    whole = run(toy_config(tmp_path / "whole", *evaluate), False)
    assert whole == 2 and CountingTrainer.evaluated == [1, 4]
    run(toy_config(tmp_path / "parts", *evaluate), False)
    (tmp_path / "parts" / "last_checkpoint").write_text("model_0000001.pth")
    CountingTrainer.evaluated.clear()
    assert run(toy_config(tmp_path / "parts", *evaluate), True) == whole
    assert CountingTrainer.evaluated == [1, 4]  # after iteration 1, and at the end


def test_a_load_that_failed_does_not_spoil_the_next(tmp_path):
    trainer = train(toy_config(tmp_path))
    wrong = {"model": {"backbone.0.weight": torch.zeros(1)}, "trainer": {"iteration": 0}}
    torch.save(wrong, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match="does not fit"):
        trainer.checkpointer.load(str(tmp_path / "wrong.pth"))
    trainer.checkpointer.load(str(tmp_path / "model_final.pth"))


class Full(EventWriter):
    def __init__(self):
        self.full = True

    def write(self, **options) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self.write()


def test_a_log_that_cannot_be_written_is_told_once_and_ends_nothing(caplog):
    full = Full()
    writer = TolerantWriter(full)
    with caplog.at_level(logging.WARNING), EventStorage():
        for _ in range(3):
            writer.write()
        full.full = False
        writer.write()
        full.full = True
        writer.close()
    assert [r.message for r in caplog.records] == [
        "A file of Full could not be written: No space left on device. Lines of it may be missing"
    ] * 2
