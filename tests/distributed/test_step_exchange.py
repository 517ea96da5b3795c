"""Processes exchange once a step whether it is valid and whether one received a signal."""

import os
import signal
import time

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from small_runs import small_config, trainer_class
from torch import distributed as dist

from d2_isonet.distributed.launch import launch
from d2_isonet.distributed.preemption import PREEMPTED, StepExchange
from d2_isonet.distributed.supervision import ProcessFailure


@pytest.mark.parametrize("flag", [True, False, torch.tensor(True), torch.tensor(False)])
def test_one_process_agrees_with_itself(flag):
    exchange = StepExchange()
    exchange.signal = 15
    assert exchange.all_agree(flag) == bool(flag)
    assert exchange.highest_signal() == 15


def tell_each_other(folder) -> None:
    exchange, told = StepExchange(), []
    for flags, signals in [
        ((1, 1), (0, 0)),
        ((1, 0), (0, 0)),
        ((0, 1), (0, 10)),
        ((1, 1), (15, 10)),
    ]:
        exchange.signal = signals[comm.get_rank()]
        told.append((exchange.all_agree(torch.tensor(bool(flags[comm.get_rank()]))),
                     exchange.highest_signal()))  # fmt: skip
    exchange.signal = comm.get_rank()
    told.append((True, exchange.highest_signal()))  # without an exchange before it
    torch.save(told, folder / str(comm.get_rank()))


class Sent(HookBase):
    """SIGTERM to the second process alone, before the step 2 or after it."""

    def __init__(self, when: str):
        self.when = when

    def before_step(self) -> None:
        self._send("before")

    def after_step(self) -> None:
        self._send("after")

    def _send(self, now: str) -> None:
        if (self.when, self.trainer.iter, comm.get_rank()) == (now, 2, 1):
            os.kill(os.getpid(), signal.SIGTERM)


class Exchanges(HookBase):
    """Counts the exchanges that Python starts in the steps that save nothing."""

    def before_train(self) -> None:
        self.per_step, self._reduce, self._gather = [], dist.all_reduce, comm.all_gather
        dist.all_reduce, comm.all_gather = (
            self._counted(dist.all_reduce),
            self._counted(comm.all_gather),
        )

    def _counted(self, exchange):
        def counted(*args, **options):
            self.per_step[-1] += 1
            return exchange(*args, **options)

        return counted

    def before_step(self) -> None:
        self.per_step.append(0)

    def after_train(self) -> None:
        dist.all_reduce, comm.all_gather = self._reduce, self._gather


def train(folder, when: str) -> None:
    class Signalled(trainer_class()):
        def build_hooks(self) -> list:
            return [Sent(when), *super().build_hooks()]

    trainer = Signalled(small_config(folder / when, "SOLVER.CHECKPOINT_PERIOD", "1000"))
    exchanges = Exchanges()
    trainer.register_hooks([exchanges])
    trainer.train()
    torch.save(exchanges.per_step, folder / f"exchanges{comm.get_rank()}")


@pytest.mark.usefixtures("fork_server")
def test_what_one_process_tells_all_know(tmp_path):
    launch(tell_each_other, 2, args=(tmp_path,))
    expected = [(True, 0), (False, 0), (False, 10), (True, 15), (True, 1)]
    assert [torch.load(tmp_path / rank) for rank in "01"] == [expected] * 2


@pytest.mark.usefixtures("fork_server")
@pytest.mark.parametrize(("when", "last"), [("before", 2), ("after", 3)])
def test_processes_stop_after_the_same_step_whoever_was_signalled(when, last, tmp_path):
    with pytest.raises(ProcessFailure) as failure:
        launch(train, 2, args=(tmp_path, when))
    assert failure.value.exit_code == PREEMPTED
    assert (tmp_path / when / "last_checkpoint").read_text() == f"model_{last:07d}.pth"


@pytest.mark.usefixtures("fork_server")
def test_a_step_asks_for_one_exchange(tmp_path):
    launch(train, 2, args=(tmp_path, "never"))
    for rank in "01":
        *steps, last = torch.load(tmp_path / f"exchanges{rank}")
        assert steps == [1] * 5 and last > 1  # the last one is saved


def stop_in_evaluation(folder, launcher) -> None:
    class Evaluated(trainer_class()):
        @classmethod
        def test(cls, cfg, model, evaluators=None):
            if comm.get_rank() == 1:
                os.kill(launcher, signal.SIGTERM)
            comm.synchronize()
            time.sleep(600 * comm.is_main_process())  # like COCO's evaluation
            return {}

    options = ("SOLVER.CHECKPOINT_PERIOD", "1000", "TEST.EVAL_PERIOD", "3")
    Evaluated(small_config(folder, *options)).train()


@pytest.mark.usefixtures("fork_server")
def test_processes_stopped_in_an_evaluation_save_first_and_end(tmp_path):
    with pytest.raises(ProcessFailure, match="^$") as failure:
        launch(stop_in_evaluation, 2, args=(tmp_path, os.getpid()))
    assert failure.value.exit_code == PREEMPTED
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
