"""Supervises the processes of one machine: if one fails, stops the others with one message."""

import contextlib
import multiprocessing.connection
import os
import pickle
import signal
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess

import torch.distributed as dist
from torch.multiprocessing import ProcessContext

from d2_isonet.utils.messages import show

from .meeting import MeetingError, Member, report_failure

_PASSED_ON = (signal.SIGTERM, signal.SIGUSR1)  # schedulers announce the end with them
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


def supervise(context: ProcessContext, first: Member, store: dist.Store) -> None:
    """Wait for the processes of this machine, `first` and its siblings.

    SIGTERM and SIGUSR1 are passed to them; they then end in their own time.

    Raises:
        ProcessFailure: one ended with an exit code or by a signal; the others were stopped.
    """
    with _signals_passed_on(context.processes) as passed_on:
        ended_by_us = _wait(context.processes, passed_on)
    failed = [i for i, p in enumerate(context.processes) if p.exitcode and i not in ended_by_us]
    if not failed:
        return
    traces = {i: _trace(context.error_files[i]) for i in failed}
    to_blame = [i for i in failed if not _lost_the_others(traces[i])]
    culprit = (to_blame or failed)[0]
    code = context.processes[culprit].exitcode
    message = _message(first.sibling(culprit), code, traces[culprit])
    if to_blame and first.world_size > first.local_size:
        report_failure(store, message or f"{first.sibling(culprit).name} ended with an error")
        time.sleep(_PATIENCE if first.rank == 0 else 0)  # the store lives here: let others read
    raise ProcessFailure(message, code if code > 0 else 128 - code)


@contextlib.contextmanager
def _signals_passed_on(processes: list[BaseProcess]) -> Iterator[list[int]]:
    """Pass a scheduler's signals to the processes; yield the list of those received."""
    received: list[int] = []

    def pass_on(number: int, _frame) -> None:
        received.append(number)
        for process in processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: list[BaseProcess], passed_on: list[int]) -> set[int]:
    """Wait until all have ended or one has failed; return the numbers of those stopped then."""
    running = dict(enumerate(processes))
    while running:
        multiprocessing.connection.wait([p.sentinel for p in running.values()])
        failed = [p for p in running.values() if not p.is_alive() and p.exitcode]
        running = {i: p for i, p in running.items() if p.is_alive()}
        if failed and not passed_on:
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


def _trace(error_file: str) -> str:
    """The traceback that torch has stored of a process; "" if it was killed or has exited."""
    if not os.path.exists(error_file):
        return ""
    with open(error_file, "rb") as file:
        return pickle.load(file)


def _lost_the_others(trace: str) -> bool:
    return f"{MeetingError.__module__}.{MeetingError.__name__}: " in _last_line(trace)


def _last_line(trace: str) -> str:
    return (trace.strip().splitlines() or [""])[-1]


def _message(member: Member, exit_code: int, trace: str) -> str:
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"{member.name} was ended by {name}{_HINTS.get(name, '')}; the others were stopped"
    if not trace:
        return ""
    if _lost_the_others(trace):
        return _last_line(trace).split(": ", 1)[1]
    show(trace, to_stderr=True)
    return f"{member.name} failed: {_last_line(trace)}; the others were stopped"
