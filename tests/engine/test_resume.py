"""A killed and resumed run equals an uninterrupted one to the last bit, in both tasks."""

import logging
import random

import numpy as np
import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng
from resumed_runs import STEPS, task, write_data

from d2_isonet.config.loading import load_config
from d2_isonet.data.sampling import seed_of, seeded
from d2_isonet.engine.pretraining import ClassificationTrainer
from d2_isonet.engine.resuming import resume_message, settle_seed


class Killed(BaseException):
    """Not an Exception, so that no handler cleans up after it."""


class Observer(HookBase):
    """Records the loss of every step, and kills the training before step `end`."""

    def __init__(self, end: int | None):
        self.losses, self.end = {}, end

    def before_step(self) -> None:
        if self.trainer.iter == self.end:
            raise Killed

    def after_step(self) -> None:
        self.losses[self.trainer.iter] = self.trainer.storage.latest()["total_loss"][0]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    return root


def run(trainer_class, cfg, resume: bool = False, end: int | None = None):
    """Run until step `end`; returns the losses by iteration, and the trainer."""
    torch.manual_seed(0 if not resume else 99)  # earlier draws must not matter
    trainer = trainer_class(cfg)
    trainer.resume_or_load(resume=resume)
    observer = Observer(end)
    trainer.register_hooks([observer])
    try:
        trainer.train()
    except Killed:
        pass
    return observer.losses, trainer


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """By task: losses and final weights of the uninterrupted run, without loading processes."""
    runs = {}
    for name in ("detection", "classification"):
        losses, trainer = run(*task(name, data, tmp_path_factory.mktemp(name)))
        runs[name] = losses, trainer.model.state_dict()
    return runs


@pytest.mark.parametrize("workers", [(0, 0), (2, 0), (0, 2)])
@pytest.mark.parametrize("name", ["detection", "classification"])
def test_a_killed_and_resumed_run_is_the_uninterrupted_one_to_the_bit(
    name, workers, data, whole, tmp_path
):
    before, after = workers
    first, _ = run(*task(name, data, tmp_path, before), end=5)  # step 4 is done but not saved
    second, trainer = run(*task(name, data, tmp_path, after), resume=True)
    losses, state = whole[name]
    assert sorted(first) == [0, 1, 2, 3, 4] and sorted(second) == [4, 5]
    assert {**first, **second} == losses and first[4] == second[4]
    for key, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, state[key]), key


def test_every_step_has_another_loss(whole):
    for losses, _ in whole.values():
        assert len(set(losses.values())) == STEPS


def test_a_seed_that_was_drawn_is_taken_up_again(data, tmp_path, caplog):
    trainer_class, cfg = task("classification", data, tmp_path, 0, "SEED", "-1")
    cfg.SEED = -1
    with caplog.at_level(logging.INFO):
        _, first = run(trainer_class, cfg, end=3)
        _, second = run(trainer_class, cfg, resume=True)
    assert first.seed == second.seed != second.cfg.SEED
    assert f"SEED is -1: drew {first.seed} for this run" in caplog.text
    assert f"Using the checkpoint's seed {first.seed}" in caplog.text


def test_a_batch_of_another_size_goes_on_and_is_told(data, tmp_path, caplog):
    run(*task("classification", data, tmp_path), end=3)
    run(*task("classification", data, tmp_path, 0, "SOLVER.IMS_PER_BATCH", "4"), resume=True)
    assert "a different setup (images_per_batch 2 -> 4): training continues, but" in caplog.text


def test_a_checkpoint_without_data_order_resumes_with_a_warning(data, tmp_path, caplog):
    run(*task("classification", data, tmp_path), end=3)
    path = tmp_path / "model_0000001.pth"
    content = torch.load(path, weights_only=True)
    del content["trainer"]["data_order"]
    torch.save(content, path)
    losses, _ = run(*task("classification", data, tmp_path), resume=True)
    assert sorted(losses) == [2, 3, 4, 5]
    assert "does not say in what order its training saw the images" in caplog.text


def test_a_loader_that_cannot_start_later_is_told(data, tmp_path, caplog):
    class PlainLoader(ClassificationTrainer):
        @classmethod
        def build_train_loader(cls, cfg):
            batch = next(iter(super().build_train_loader(cfg)))
            return [batch] * STEPS

    _, cfg = task("classification", data, tmp_path)
    run(PlainLoader, cfg, end=3)
    assert "start_at" not in caplog.text
    run(PlainLoader, cfg, resume=True)
    assert "build_train_loader made a list, which has no start_at" in caplog.text


def test_a_finished_run_says_so_and_trains_nothing(data, tmp_path, caplog):
    run(*task("classification", data, tmp_path))
    with caplog.at_level(logging.INFO):
        losses, _ = run(*task("classification", data, tmp_path), resume=True)
    assert not losses
    assert "model_final.pth has finished its 6 iterations (SOLVER.MAX_ITER 6): not" in caplog.text


@pytest.mark.parametrize(
    ("path", "start", "text"),
    [
        ("", 0, "there is no checkpoint in OUTPUT_DIR; starting at iteration 0"),
        ("out/model_0000001.pth", 2, "continuing from model_0000001.pth at iteration 2 of 6"),
        ("out/model_final.pth", 9, "has finished its 9 iterations (SOLVER.MAX_ITER 6)"),
    ],
)
def test_the_log_says_what_is_resumed(path, start, text):
    assert text in resume_message(path, start, 6)


def test_a_used_folder_without_resume_begins_anew_and_keeps_the_old_run(data, tmp_path, caplog):
    run(*task("classification", data, tmp_path), end=5)
    losses, _ = run(*task("classification", data, tmp_path), end=1)
    assert sorted(losses) == [0] and not (tmp_path / "last_checkpoint").exists()
    assert (tmp_path / "earlier_run_1" / "model_0000003.pth").is_file()
    assert "moved them and metrics.json to earlier_run_1/" in caplog.text
    losses, _ = run(*task("classification", data, tmp_path), resume=True)
    assert sorted(losses) == list(range(STEPS))  # not a continuation of the old run


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(data, tmp_path, caplog):
    run(*task("classification", data, tmp_path), end=5)
    (tmp_path / "model_0000003.pth").write_bytes(b"stub")
    losses, _ = run(*task("classification", data, tmp_path), resume=True)
    assert sorted(losses) == [2, 3, 4, 5]
    assert "Resuming from the newest good checkpoint, model_0000001.pth" in caplog.text


def test_seeded_numbers_are_the_seeds_and_leave_no_trace():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    seed_all_rng(1)
    expected = draw(), draw()
    seed_all_rng(1)
    first = draw()
    with seeded(3):
        inside = draw()
    assert (first, draw()) == expected
    with seeded(3):
        assert draw() == inside


def test_seeds_of_other_keys_are_others():
    keys = [(a, b, c) for a in range(10) for b in ("step", "image") for c in range(50)]
    assert len({seed_of(*key) for key in keys}) == 1000


def test_a_given_seed_is_kept():
    cfg = load_config("", ["SEED", "3"])
    assert settle_seed(cfg) is cfg
