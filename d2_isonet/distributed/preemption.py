"""Signals that end a training, which is saved first: a scheduler's, and Ctrl-C."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from detectron2.utils import comm
from torch import distributed as dist

from d2_isonet.utils.messages import INTERRUPTED


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
_ALWAYS_OBEYED = (signal.SIGTERM, signal.SIGUSR1)
SIGNALS = (*_ALWAYS_OBEYED, signal.SIGHUP, signal.SIGINT)
ENDED_OUTSIDE = "outside of the training's steps: there was nothing to save"


def exit_code_of(number: int) -> int:
    """The exit code of a training that this signal has ended: 130 for Ctrl-C, 75 for the others."""
    return INTERRUPTED if number == signal.SIGINT else PREEMPTED


@contextlib.contextmanager
def handled_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Inside, `handler` gets SIGNALS, except those that nohup or a shell's & ignores.

    Python allows this in the main thread alone. In another thread nothing changes.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if number in _ALWAYS_OBEYED or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for obeyed, earlier in before.items():
            signal.signal(obeyed, earlier)


def end_at_once(number: int, _frame: FrameType | None = None, reason: str = ENDED_OUTSIDE) -> None:
    """A handler that ends this process with one line, without unwinding what it is doing."""
    code = exit_code_of(number)
    text = f"ended by {signal.Signals(number).name} {reason}. Exit code {code}\n"
    os.write(2, text.encode())  # print is not allowed inside another print
    try:
        for child in multiprocessing.active_children():
            if getattr(child, "_parent_pid", None) == os.getpid():  # a fork lists its parent's too
                child.kill()
    finally:  # DataLoader's handler may raise that one has ended
        os._exit(code)


class Stopped(SystemExit):
    """Unwinds an evaluation that a signal has interrupted."""


class StopRequest:
    """Whether a signal has asked this training to stop: a scheduler's, a closed terminal's, Ctrl-C.

    In a step the handler only notes the signal: the training stops between two steps, where it can
    be saved. The other processes learn of it in the exchange of the next step. While
    `interruptible`, the handler of the main process raises Stopped. A second Ctrl-C ends a single
    process at once. If there are several, the launcher kills them.

    Attributes:
        signal: the number of the signal, 0 for none.
        interruptible: whether the training is between two steps, such as in an evaluation.
        interrupted: whether Stopped was raised.
        noted: the last signal that any training of this process has noted.
        newest_checkpoint: a function that returns the file to resume from, "" for none.
    """

    noted = 0

    def __init__(self, newest_checkpoint: Callable[[], str] = lambda: ""):
        self.signal = 0
        self.interruptible = self.interrupted = False
        self.newest_checkpoint = newest_checkpoint
        self._exchange = StepExchange()
        self._listening = contextlib.ExitStack()

    def listen(self, exchange: StepExchange | None = None) -> None:
        """Note the signals from now on.

        Args:
            exchange: the exchange of every step; None if the training has none.
        """
        self._exchange = exchange or StepExchange()
        self._exchange.signal = self.signal
        self._listening.enter_context(handled_signals(self._note))

    def stop_listening(self) -> None:
        """Restore the earlier handlers, unless a signal is already ending this process."""
        if not self.signal:
            self._listening.close()

    def _note(self, number: int, _frame) -> None:
        # no logging here: a signal may come inside a log call
        if number == self.signal == signal.SIGINT and comm.get_world_size() == 1:
            newest = self.newest_checkpoint()
            saved = f"--resume continues from {newest}" if newest else "there is no checkpoint"
            end_at_once(number, reason=f"a second time, before the last step was saved; {saved}")
        self.signal = self._exchange.signal = StopRequest.noted = number
        self._interrupt()

    def _interrupt(self) -> None:
        if self.interruptible and self.signal and comm.is_main_process():
            self.interruptible, self.interrupted = False, True
            raise Stopped(exit_code_of(self.signal))

    def allow_interruption(self) -> None:
        """Let a signal end this process from now on, or now if one has come meanwhile."""
        self.interruptible = True
        self._interrupt()

    def reached_any_process(self) -> bool:
        """Whether any process was signalled; every process must call this after every step."""
        if comm.get_world_size() == 1:
            return self.signal != 0
        highest = self._exchange.highest_signal()  # the others may not know this process's own yet
        self.signal = StopRequest.noted = highest or self.signal
        return highest != 0

    def __str__(self) -> str:
        return signal.Signals(self.signal).name if self.signal else "no signal"
