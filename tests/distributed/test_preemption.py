"""A scheduler's signal saves the training and ends it with code 75; Ctrl-C ends it in one line."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from detectron2.engine import HookBase
from scripts import ENVIRONMENT
from two_convolutions import OwnShareTrainer, toy_config, train, weights

from d2_isonet.distributed.preemption import PREEMPTED, StopRequest
from d2_isonet.utils.messages import INTERRUPTED, quiet_interrupt


@pytest.fixture(autouse=True)
def handlers():
    """What a signal does to pytest itself is as before."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Signal(HookBase):
    """Sends this process a signal in a step."""

    def __init__(self, number: int, iteration: int):
        self.number, self.iteration = number, iteration

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), self.number)


def signalled(cfg, number: int, iteration: int) -> int:
    """The exit code of a run that gets a signal in that iteration; 0 if it ends as usual."""
    trainer = OwnShareTrainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.register_hooks([Signal(number, iteration)])
    try:
        trainer.train()
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_s_signal_saves_the_step_and_ends_with_its_code(number, tmp_path, caplog):
    whole = train(toy_config(tmp_path / "whole"))
    cfg = toy_config(tmp_path / "parts", "SOLVER.CHECKPOINT_PERIOD", "1000")
    assert signalled(cfg, number, 2) == PREEMPTED == 75
    assert (tmp_path / "parts" / "last_checkpoint").read_text() == "model_0000002.pth"
    assert f"Stopped by {number.name} after iteration 2, which is saved" in caplog.text
    resumed = train(cfg, resume=True)
    assert resumed.start_iter == 3
    for a, b in zip(weights(resumed), weights(whole), strict=True):
        assert torch.equal(a, b)


def test_a_signal_in_the_last_step_lets_the_training_finish(tmp_path):
    assert signalled(toy_config(tmp_path), signal.SIGTERM, 3) == 0
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_a_training_that_was_not_signalled_leaves_the_signals_as_they_were(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    train(toy_config(tmp_path))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_full_disk_when_preempted_is_an_error_not_code_75(tmp_path, monkeypatch):
    from d2_isonet.checkpoint import checkpointer as checkpoint
    from d2_isonet.utils.files import SaveError

    def full(path, content):
        raise SaveError("no room")

    monkeypatch.setattr(checkpoint, "write_checkpoint", full)
    cfg = toy_config(tmp_path, "SOLVER.CHECKPOINT_PERIOD", "1000")
    assert signalled(cfg, signal.SIGTERM, 1) == 1


def test_ctrl_c_ends_with_one_line_and_the_shells_code(capsys):
    with pytest.raises(SystemExit) as end, quiet_interrupt():
        raise KeyboardInterrupt
    assert end.value.code == INTERRUPTED == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_no_signal_is_no_request():
    stop = StopRequest()
    assert not stop.reached_any_process() and str(stop) == "no signal"


SCRIPT = """
import sys
from argparse import Namespace
import toy_run
from d2_isonet.distributed.launch import run

def main(args):
    toy_run.train({folder!r}, 100_000)

if __name__ == "__main__":
    given = {{"num_gpus": 2, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}}
    run(main, Namespace(**given, dist_timeout=60.0))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, PREEMPTED), (signal.SIGINT, INTERRUPTED)]
)
def test_two_processes_end_together(number, code, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path / "run")))
    child = subprocess.Popen(
        [sys.executable, str(script)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=ENVIRONMENT,
    )
    steps = tmp_path / "run.steps"
    deadline = time.monotonic() + 240
    while not (steps.exists() and steps.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    # a scheduler may signal the launching process alone, a terminal signals all
    os.kill(child.pid, number) if code == PREEMPTED else os.killpg(child.pid, number)
    error = child.communicate(timeout=120)[1]
    assert child.returncode == code, error
    assert "Traceback" not in error, error
    if code == PREEMPTED:
        done = len(steps.read_text().splitlines())
        last = (tmp_path / "run" / "last_checkpoint").read_text()
        assert last == f"model_{done - 1:07d}.pth"
