"""A scheduler's signal saves the training and ends it with code 75; Ctrl-C ends it in one line."""

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace

import pytest
import torch
from child_processes import fork, wait
from detectron2.engine import HookBase
from scripts import ENVIRONMENT
from two_convolutions import OwnShareTrainer, toy_config, train, weights

from d2_isonet.distributed.launch import run
from d2_isonet.distributed.preemption import PREEMPTED, SIGNALS, StopRequest, handled_signals
from d2_isonet.utils.messages import INTERRUPTED, quiet_interrupt


@pytest.fixture(autouse=True)
def handlers():
    """Restore pytest's own signal handlers afterwards."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
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


CODES = [(x, 75) for x in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)] + [(signal.SIGINT, 130)]


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_saves_the_step_and_ends_with_its_code(number, code, tmp_path, caplog):
    whole = train(toy_config(tmp_path / "whole"))
    cfg = toy_config(tmp_path / "parts", "SOLVER.CHECKPOINT_PERIOD", "1000")
    assert signalled(cfg, number, 2) == code
    assert (tmp_path / "parts" / "last_checkpoint").read_text() == "model_0000002.pth"
    assert f"Stopped by {number.name} after iteration 2, which is saved" in caplog.text
    resumed = train(cfg, resume=True)
    assert resumed.start_iter == 3
    for a, b in zip(weights(resumed), weights(whole), strict=True):
        assert torch.equal(a, b)


def test_a_signal_before_a_step_begins_saves_the_step_before_and_loses_none(tmp_path, caplog):
    whole = train(toy_config(tmp_path / "whole"))
    cfg = toy_config(tmp_path / "parts", "SOLVER.CHECKPOINT_PERIOD", "1000")
    trainer = OwnShareTrainer(cfg)
    signals = Signal(signal.SIGTERM, 2)
    trainer.register_hooks([signals])
    trainer._hooks.insert(0, trainer._hooks.pop(trainer._hooks.index(signals)))
    with pytest.raises(SystemExit):
        trainer.train()
    assert "Stopped by SIGTERM after iteration 1, which is saved" in caplog.text
    resumed = train(cfg, resume=True)
    assert resumed.start_iter == 2  # it was 3: the step that never ran was counted as done
    for a, b in zip(weights(resumed), weights(whole), strict=True):
        assert torch.equal(a, b)


def test_after_a_signal_in_the_last_step_the_resumed_run_finishes(tmp_path):
    assert signalled(toy_config(tmp_path), signal.SIGTERM, 3) == PREEMPTED
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert signalled(toy_config(tmp_path), signal.SIGTERM, -1) == 0


class SignalledEvaluation(OwnShareTrainer):
    """Gets SIGTERM in its first evaluation, at iteration 1."""

    evaluated: list[int] = []
    last_checkpoint = ""

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        cls.evaluated.append(len(cls.evaluated))
        if len(cls.evaluated) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the evaluation must not continue")
        return {}


def test_a_signal_in_an_evaluation_saves_at_once_and_the_resumed_run_evaluates(tmp_path, caplog):
    never = ("SOLVER.CHECKPOINT_PERIOD", "1000", "TEST.EVAL_PERIOD", "2")
    cfg = toy_config(tmp_path, *never)
    trainer = SignalledEvaluation(cfg)
    with pytest.raises(SystemExit) as end:
        trainer.train()
    assert end.value.code == PREEMPTED
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    assert "Stopped by SIGTERM after iteration 1, which is saved" in caplog.text
    trainer = SignalledEvaluation(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    assert trainer.start_iter == 2 and SignalledEvaluation.evaluated == [0, 1, 2]


@pytest.mark.parametrize(("period", "saved"), [(1000, ""), (2, "model_0000001.pth")])
def test_a_second_ctrl_c_ends_at_once_and_names_what_there_is(period, saved, tmp_path):
    cfg = toy_config(tmp_path / "run", "SOLVER.CHECKPOINT_PERIOD", str(period))

    def twice() -> None:
        trainer = OwnShareTrainer(cfg)
        trainer.register_hooks([Signal(signal.SIGINT, 2), Signal(signal.SIGINT, 2)])
        trainer.train()

    log = tmp_path / "log"
    assert wait(fork(twice, log)) == INTERRUPTED
    expected = f"--resume continues from {tmp_path / 'run' / saved}" if saved else "no checkpoint"
    last = log.read_text().splitlines()[-1]
    assert last.startswith("ended by SIGINT a second time") and expected in last
    assert not (tmp_path / "run" / "model_0000002.pth").exists()


def test_what_nohup_or_a_shell_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with handled_signals(lambda number, _: None):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_outside_of_the_steps_a_signal_ends_a_run_at_once(tmp_path):
    def scan(_args) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)

    log = tmp_path / "log"
    given = Namespace(num_gpus=0, num_machines=1, machine_rank=0, dist_url="auto", dist_timeout=1.0)
    assert wait(fork(lambda: run(scan, given), log)) == PREEMPTED
    assert "ended by SIGTERM outside of the training's steps: there was" in log.read_text()


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
    ("number", "whom", "code"),
    [
        (signal.SIGTERM, "launcher", PREEMPTED),
        (signal.SIGTERM, "group", PREEMPTED),
        (signal.SIGINT, "group", INTERRUPTED),
        (signal.SIGKILL, "launcher", -signal.SIGKILL),
    ],
)
def test_two_processes_end_together(number, whom, code, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path / "run")))
    child = subprocess.Popen(
        [sys.executable, str(script)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=ENVIRONMENT,
        # as a script's & does
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if code < 0 else None,
    )
    steps = tmp_path / "run.steps"
    deadline = time.monotonic() + 240
    while not (steps.exists() and steps.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    (os.kill if whom == "launcher" else os.killpg)(child.pid, number)
    error = child.communicate(timeout=120)[1]  # until the last process has closed stderr
    assert child.returncode == code, error
    assert "Traceback" not in error, error
    done = len(steps.read_text().splitlines())
    assert (tmp_path / "run" / "last_checkpoint").read_text() == f"model_{done - 1:07d}.pth"
