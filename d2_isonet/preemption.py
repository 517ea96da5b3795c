"""Signals that end a training: a scheduler's, after which it is saved, and Ctrl-C."""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator

from detectron2.utils import comm

logger = logging.getLogger(__name__)

# EX_TEMPFAIL of sysexits.h, "try again later": the training is saved and --resume goes on with it.
# Not 143, with which a process also ends that SIGTERM killed before it could save.
PREEMPTED = 75
INTERRUPTED = 130  # what shells report for Ctrl-C

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether a scheduler has asked this training to stop, by SIGTERM or SIGUSR1.

    The signal only leaves a note; the training stops where it can be saved, between two steps.
    """

    def __init__(self):
        self.signal = 0

    def listen(self) -> None:
        """From now on the signals are noted. Elsewhere than in the main thread Python cannot."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._note)

    def _note(self, number: int, frame) -> None:
        self.signal = number  # no logging here: a signal may come inside a log call

    def reached_any_process(self) -> bool:
        """The same answer on all processes, each of which calls this after every step."""
        if comm.get_world_size() == 1:
            return self.signal != 0
        self.signal = max(comm.all_gather(self.signal))
        return self.signal != 0

    def __str__(self) -> str:
        return signal.Signals(self.signal).name if self.signal else "no signal"


@contextlib.contextmanager
def signals_passed_on(to_children: bool) -> Iterator[None]:
    """A scheduler's signal reaches the training processes; Ctrl-C ends this one with one line.

    Args:
        to_children: they are children of this process, and a scheduler may signal it alone.
    """
    if to_children and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, _pass_on)
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


def _pass_on(number: int, frame) -> None:
    children = multiprocessing.active_children()
    for child in children:
        os.kill(child.pid, number)
    if not children:  # nothing has begun yet that could be saved
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
