"""Signals that end a training: a scheduler's, which saves it first, and Ctrl-C."""

import signal
import threading
from typing import Any

import torch
from detectron2.utils import comm
from torch import distributed as dist


class StepExchange:
    """What the processes exchange in a step: whether all agree to it, and the highest signal.

    `signal` is the number that this process sends from its next exchange on, 0 for none.
    """

    def __init__(self):
        self.signal = 0
        self._highest_signal: int | None = None

    def all_agree(self, flag: bool | torch.Tensor, device: torch.device | str = "cpu") -> bool:
        """Whether `flag` is true on every process; every process must call this.

        Args:
            device: the device on which the processes' backend exchanges tensors.
        """
        if comm.get_world_size() == 1:
            self._highest_signal = self.signal
            return bool(flag)
        sent = torch.zeros(2, dtype=torch.int32, device=device)
        sent[0], sent[1] = torch.as_tensor(flag).logical_not(), self.signal
        dist.all_reduce(sent, dist.ReduceOp.MAX)
        objections, self._highest_signal = sent.tolist()
        return objections == 0

    def highest_signal(self) -> int:
        """The highest signal of any process, the same on all; every process must call this.

        It comes from the last exchange of the step; if the step had none, because it is not an
        AccumulatingTrainer's, this call makes one.
        """
        highest, self._highest_signal = self._highest_signal, None
        return max(comm.all_gather(self.signal)) if highest is None else highest


# EX_TEMPFAIL of sysexits.h, "try again later": the training is saved and --resume continues it.
# Not 143: a process that SIGTERM killed before it could save ends with that code, too.
PREEMPTED = 75
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether a scheduler has asked this training to stop, by SIGTERM or SIGUSR1.

    The handler only notes the signal; the training stops between two steps, where it can be saved.
    The other processes learn of it in the exchange of the next step.
    """

    def __init__(self):
        self.signal = 0
        self._exchange = StepExchange()
        self._before: dict[int, Any] = {}

    def listen(self, exchange: StepExchange | None = None) -> None:
        """Note the signals from now on, which Python allows in the main thread alone.

        Args:
            exchange: the exchange of every step; None if the training has none.
        """
        self._exchange = exchange or StepExchange()
        self._exchange.signal = self.signal
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def stop_listening(self) -> None:
        """Restore the earlier handlers, unless a signal is already ending this process."""
        if not self.signal:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        self.signal = number  # no logging here: a signal may come inside a log call
        self._exchange.signal = number

    def reached_any_process(self) -> bool:
        """Whether any process was signalled; every process must call this after every step."""
        if comm.get_world_size() == 1:
            return self.signal != 0
        highest = self._exchange.highest_signal()  # the others may not know this process's own yet
        self.signal = highest or self.signal
        return highest != 0

    def __str__(self) -> str:
        return signal.Signals(self.signal).name if self.signal else "no signal"
