"""Two processes, one killed and both restarted, equal uninterrupted ones to the last bit.

Every process records what only it has: the losses of its images, and the next numbers of its
random generators.
"""

import os
import random
import signal
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from resumed_runs import STEPS, task, write_data

from d2_isonet.distributed.launch import launch
from d2_isonet.distributed.supervision import ProcessFailure

pytestmark = pytest.mark.usefixtures("fork_server")
BATCH = ["SOLVER.IMS_PER_BATCH", "4"]


class Recorder(HookBase):
    """Appends "iteration losses numbers" of this process to a file after every step.

    Args:
        end: the last process kills itself before this step; -1 for never.
    """

    def __init__(self, folder: Path, end: int):
        self.path, self.end = steps_of(folder, comm.get_rank()), end
        self.losses: dict[str, float] = {}

    def before_train(self) -> None:
        self.trainer.model.register_forward_hook(self._note)

    def _note(self, model, images, losses: dict[str, torch.Tensor]) -> None:
        self.losses = {name: loss.item().hex() for name, loss in losses.items()}

    def before_step(self) -> None:
        if self.trainer.iter == self.end and comm.get_rank() == comm.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_step(self) -> None:
        numbers = random.random(), float(np.random.rand()), torch.rand(1).item()
        with open(self.path, "a") as file:
            file.write(f"{self.trainer.iter} {self.losses} {numbers}\n")


def steps_of(folder: Path, rank: int) -> Path:
    return Path(f"{folder}.steps{rank}")


def recorded(folder: Path, rank: int) -> dict[int, list[str]]:
    """The records of a process by iteration, one for each time it did the iteration."""
    steps = defaultdict(list)
    for line in steps_of(folder, rank).read_text().splitlines():
        iteration, _, values = line.partition(" ")
        steps[int(iteration)].append(values)
    return dict(steps)


def train(name: str, data: Path, folder: Path, workers: int, resume: bool, end: int) -> None:
    torch.set_num_threads(1)
    # every process builds the same network; other earlier draws must not matter
    torch.manual_seed(99 + comm.get_rank() if resume else 0)
    trainer_class, cfg = task(name, data, folder, workers, *BATCH)
    trainer = trainer_class(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.register_hooks([Recorder(folder, end)])
    trainer.train()


def run(name: str, data: Path, folder: Path, workers: int = 0, resume: bool = False, end: int = -1):
    launch(train, 2, args=(name, data, folder, workers, resume, end))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    return root


@pytest.mark.parametrize(
    ("name", "workers"),
    [
        ("classification", (0, 0)),
        ("detection", (0, 0)),
        pytest.param("classification", (2, 1), marks=pytest.mark.slow),
        pytest.param("detection", (1, 2), marks=pytest.mark.slow),
    ],
)
def test_processes_killed_and_started_again_are_the_uninterrupted_ones(
    name, workers, data, tmp_path
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(name, data, whole)
    with pytest.raises(ProcessFailure, match=r"^process 1 of 2 .* was ended by SIGKILL"):
        run(name, data, parts, workers[0], end=5)  # step 4 is done but not saved
    run(name, data, parts, workers[1], resume=True)
    for rank in (0, 1):
        expected, found = recorded(whole, rank), recorded(parts, rank)
        assert sorted(expected) == sorted(found) == list(range(STEPS))
        assert [len(found[step]) for step in found] == [1, 1, 1, 1, 2, 1]
        for step, values in found.items():
            assert set(values) == set(expected[step]), (rank, step)
    for step, values in recorded(whole, 0).items():
        assert values != recorded(whole, 1)[step], "both processes drew and saw the same"
    ours, theirs = (
        torch.load(folder / "model_final.pth", weights_only=True) for folder in (parts, whole)
    )
    for key, tensor in theirs["model"].items():
        assert torch.equal(ours["model"][key], tensor), key
    momentum = [
        [
            state["momentum_buffer"]
            for state in x["trainer"]["_trainer"]["optimizer"]["state"].values()
        ]
        for x in (ours, theirs)
    ]
    assert momentum[0] and all(map(torch.equal, *momentum))
