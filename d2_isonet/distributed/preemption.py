"""Signals that end a training: a scheduler's, after which it is saved, and Ctrl-C."""

import signal
import threading
from typing import Any

import torch
from detectron2.utils import comm
from torch import distributed as dist


class StepExchange:
    """Whether all processes may go on with a step, and whether one of them was sent a signal.

    `signal` is what this process has to tell from its next exchange on, 0 for nothing.
    """

    def __init__(self):
        self.signal = 0
        self._highest_signal: int | None = None

    def all_agree(self, flag: bool | torch.Tensor, device: torch.device | str = "cpu") -> bool:
        """Whether `flag` is true on every process; each must ask.

        Args:
            device: where the processes' backend exchanges tensors.
        """
        if comm.get_world_size() == 1:
            self._highest_signal = self.signal
            return bool(flag)
        told = torch.zeros(2, dtype=torch.int32, device=device)
        told[0], told[1] = torch.as_tensor(flag).logical_not(), self.signal
        dist.all_reduce(told, dist.ReduceOp.MAX)
        objections, self._highest_signal = told.tolist()
        return objections == 0

    def highest_signal(self) -> int:
        """The highest number that any process had to tell, the same on all; each must ask.

        As of the exchange since it was last asked; a step that had none, of another kind than
        AccumulatingTrainer's, is made up for.
        """
        highest, self._highest_signal = self._highest_signal, None
        return max(comm.all_gather(self.signal)) if highest is None else highest


# EX_TEMPFAIL of sysexits.h, "try again later": the training is saved and --resume goes on with it.
# Not 143, with which a process also ends that SIGTERM killed before it could save.
PREEMPTED = 75
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether a scheduler has asked this training to stop, by SIGTERM or SIGUSR1.

    The signal only leaves a note; the training stops where it can be saved, between two steps.
    Several processes know of it from the exchange of the next step on.
    """

    def __init__(self):
        self.signal = 0
        self._exchange = StepExchange()
        self._before: dict[int, Any] = {}

    def listen(self, exchange: StepExchange | None = None) -> None:
        """From now on the signals are noted. Elsewhere than in the main thread Python cannot.

        Args:
            exchange: of every step; None for a training that has none.
        """
        self._exchange = exchange or StepExchange()
        self._exchange.signal = self.signal
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def stop_listening(self) -> None:
        """Signals do again what they did; but none ends a process that is ending because of one."""
        if not self.signal:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        self.signal = number  # no logging here: a signal may come inside a log call
        self._exchange.signal = number

    def reached_any_process(self) -> bool:
        """The same answer on all processes, each of which calls this after every step."""
        if comm.get_world_size() == 1:
            return self.signal != 0
        highest = self._exchange.highest_signal()  # of its own the others may not know yet
        self.signal = highest or self.signal
        return highest != 0

    def __str__(self) -> str:
        return signal.Signals(self.signal).name if self.signal else "no signal"
