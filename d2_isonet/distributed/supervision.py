"""Supervises the processes of one machine: if one fails, stops the others with one message."""

import contextlib
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch.distributed as dist
from torch.multiprocessing import ProcessContext

from d2_isonet.utils.messages import INTERRUPTED, show

from .meeting import MeetingError, Member, report_failure
from .preemption import ENDED_OUTSIDE, PREEMPTED, exit_code_of, handled_signals

_PATIENCE = 5.0  # seconds that processes get to end by themselves after a sibling has failed
_HINTS = {
    "SIGKILL": " (by hand, or by the system when memory runs out)",
    "SIGABRT": " (with NCCL also when the others did not answer within --dist-timeout; see above)",
}


class ProcessFailure(RuntimeError):
    """A process failed; the message names it, "" if it has printed the reason itself."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def supervise(
    start: Callable[[], ProcessContext], first: Member, store: dist.Store, traces: Path
) -> None:
    """Start the processes of this machine, `first` and its siblings, and wait for them.

    The signals that end a training are passed to them; they then end in their own time.

    Args:
        traces: the folder to which each failed process writes its traceback, see `trace_file`.

    Raises:
        ProcessFailure: one ended with an exit code or by a signal; the others were stopped.
    """
    processes: list[BaseProcess] = []
    with _signals_passed_on(processes) as received:
        processes += start().processes
        for number in list(received):
            _send(processes, number)
        ended_by_us = _wait(processes, received)
    ends = [
        _End(first.sibling(i), process.exitcode, _trace(traces, i), received)
        for i, process in enumerate(processes)
        if process.exitcode and i not in ended_by_us
    ]
    if received.count(signal.SIGINT) > 1:
        raise ProcessFailure("interrupted twice: the processes were killed", INTERRUPTED)
    if not ends:
        return
    culprit = min(ends, key=_End.rank_of_blame)
    message = culprit.message()
    if culprit.rank_of_blame() < _STOPPED and first.world_size > first.local_size:
        report_failure(store, message or f"{culprit.member.name} ended with an error")
        time.sleep(_PATIENCE if first.rank == 0 else 0)  # the store lives here: let others read
    raise ProcessFailure(message, culprit.exit_code())


@contextlib.contextmanager
def _signals_passed_on(processes: list[BaseProcess]) -> Iterator[list[int]]:
    """Pass the signals that end a training to `processes`; yield the list of those received.

    A second Ctrl-C kills them.
    """
    received: list[int] = []

    def pass_on(number: int, _frame) -> None:
        is_second = number == signal.SIGINT and number in received
        received.append(number)
        _send(processes, signal.SIGKILL if is_second else number)

    with handled_signals(pass_on):
        yield received


def _send(processes: list[BaseProcess], number: int) -> None:
    for process in processes:
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, number)


def _wait(processes: list[BaseProcess], received: list[int]) -> set[int]:
    """Wait until all have ended or one has failed; return the numbers of those stopped then.

    After a signal only the end of the first stops the others: it saves the training.
    """
    running = dict(enumerate(processes))
    while running:
        multiprocessing.connection.wait([p.sentinel for p in running.values()])
        failed = [p for p in running.values() if not p.is_alive() and p.exitcode]
        running = {i: p for i, p in running.items() if p.is_alive()}
        if failed and (not received or 0 not in running):
            break
    running = _joined(running)
    for process in running.values():
        process.terminate()
    for process in _joined(running).values():
        process.kill()
        process.join()
    return set(running)


def _joined(running: dict[int, BaseProcess]) -> dict[int, BaseProcess]:
    """The processes that are still running after `_PATIENCE` seconds."""
    end = time.monotonic() + _PATIENCE
    for process in running.values():
        process.join(max(0.0, end - time.monotonic()))
    return {i: p for i, p in running.items() if p.is_alive()}


def trace_file(folder: str | Path, local_rank: int) -> Path:
    """The file in which a failed process leaves its traceback."""
    return Path(folder, str(local_rank))


def _trace(folder: Path, local_rank: int) -> str:
    """The traceback of a process; "" if it was killed or has exited."""
    file = trace_file(folder, local_rank)
    return file.read_text() if file.exists() else ""


_STOPPED = 3  # the first of the ranks of blame that are no failure


@dataclass
class _End:
    """How a process ended: its exit code (negative for a signal) and its traceback, if it has one.

    Args:
        received: the signals that were passed to it.
    """

    member: Member
    code: int
    trace: str
    received: list[int]

    def rank_of_blame(self) -> int:
        """The lowest has failed first: the others follow, even by an abort of gloo's threads."""
        if self.trace:
            return 5 if self._lost_the_others() else 0
        if self._was_stopped():
            return _STOPPED
        if self.code > 0:
            return 1
        return 4 if self.code == -signal.SIGABRT else 2

    def exit_code(self) -> int:
        if self._was_stopped():
            return self.code if self.code > 0 else exit_code_of(-self.code)
        return 1 if self.trace else self.code if self.code > 0 else 128 - self.code

    def message(self) -> str:
        """The message for the user, "" if the process has printed it; prints the traceback."""
        if self._lost_the_others():
            return self._last_line().split(": ", 1)[1]
        if self.trace:
            show(self.trace, to_stderr=True)
            return f"{self.member.name} failed: {self._last_line()}; the others were stopped"
        if self.code > 0:
            return ""
        name = signal.Signals(-self.code).name
        if self._was_stopped():
            return f"ended by {name} {ENDED_OUTSIDE}"
        return (
            f"{self.member.name} was ended by {name}{_HINTS.get(name, '')}; the others were stopped"
        )

    def _was_stopped(self) -> bool:
        """Whether a signal that was passed to it, or to another process, has ended it."""
        return -self.code in self.received or self.code in (PREEMPTED, INTERRUPTED)

    def _lost_the_others(self) -> bool:
        return f"{MeetingError.__module__}.{MeetingError.__name__}: " in self._last_line()

    def _last_line(self) -> str:
        return (self.trace.strip().splitlines() or [""])[-1]
