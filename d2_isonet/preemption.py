"""Signals that end a training: a scheduler's, after which it is saved, and Ctrl-C."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from detectron2.utils import comm

from .step_exchange import StepExchange

# EX_TEMPFAIL of sysexits.h, "try again later": the training is saved and --resume goes on with it.
# Not 143, with which a process also ends that SIGTERM killed before it could save.
PREEMPTED = 75
INTERRUPTED = 130  # what shells report for Ctrl-C
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


@contextlib.contextmanager
def quiet_interrupt() -> Iterator[None]:
    """Ctrl-C ends this process with one line for all, and saves nothing."""
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one is enough to end the clean-up
        if comm.get_local_rank() == 0:
            print(
                "interrupted: nothing was saved since the last checkpoint; --resume goes on there",
                file=sys.stderr,
                flush=True,
            )
        sys.exit(INTERRUPTED)
