"""The launcher: processes start and end together, and each failure is one message."""

import argparse
import multiprocessing
import os
import re
import signal
import socket
import threading
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from detectron2.utils import comm

from d2_isonet.distributed.launch import launch, run
from d2_isonet.distributed.meeting import Member, interface_towards, reported_failure
from d2_isonet.distributed.supervision import ProcessFailure, _End


def given(**options) -> argparse.Namespace:
    defaults = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    return argparse.Namespace(**{**defaults, "dist_timeout": 1.0, **options})


def never(*_):
    raise AssertionError("main must not be reached")


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def error_of_run(args, capfd) -> tuple[str, int]:
    with pytest.raises(SystemExit) as stop:
        run(never, args)
    lines = [x for x in capfd.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(lines) == 1
    return lines[0], stop.value.code


def test_a_taken_port_is_one_line_that_names_it(taken_port, capfd):
    args = given(num_machines=2, dist_url=f"tcp://127.0.0.1:{taken_port}")
    message, code = error_of_run(args, capfd)
    assert f"port {taken_port} cannot be opened" in message and "in use" in message and code == 2


def test_a_first_machine_that_does_not_come_is_a_timeout(free_port, capfd):
    args = given(num_machines=2, machine_rank=1, dist_url=f"tcp://127.0.0.1:{free_port}")
    message, code = error_of_run(args, capfd)
    assert f"machine 0 could not be reached at tcp://127.0.0.1:{free_port} within 1 s" in message
    assert "--dist-timeout" in message and code == 1


@pytest.mark.usefixtures("fork_server")
def test_another_machine_that_does_not_come_is_named(free_port, capfd):
    args = given(num_machines=2, dist_url=f"tcp://127.0.0.1:{free_port}")
    message, _ = error_of_run(args, capfd)
    assert "1 of 2 processes did not start within 1 s" in message and "machine 1." in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_machines": 2}, "--dist-url tcp://HOST:PORT"),
        ({"num_machines": 2, "machine_rank": 2}, "--machine-rank is 2.*from 0 to 1"),
        ({"num_machines": 2, "dist_url": "file:///tmp/x"}, "'file:///tmp/x'; it must be tcp://"),
        ({"num_machines": 2, "dist_url": "tcp://host:0"}, "port from 1 to 65535"),
        ({"dist_timeout": 0.0}, "--dist-timeout is 0; it must be positive"),
    ],
)
def test_impossible_arguments_are_explained(options, message, capfd):
    found, code = error_of_run(given(**options), capfd)
    assert code == 2
    assert re.search(message, found)


def test_under_torchrun_its_processes_are_not_asked_for_again(monkeypatch, capfd):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    message, _ = error_of_run(given(num_gpus=8), capfd)
    assert "torchrun has started 2 processes" in message and "--nproc-per-node" in message


def test_the_interface_is_that_of_the_address_others_see():
    assert interface_towards("127.0.0.1") == "lo"
    assert interface_towards("no such host.invalid") == ""


class SilentStore:
    """A store behind a cut cable: it never answers."""

    def wait(self, *_):
        threading.Event().wait()


def test_a_store_that_never_answers_is_not_waited_for():
    assert reported_failure(SilentStore(), patience=0.1) == ""


def say_who_is_there(folder):
    starts = multiprocessing.get_start_method()
    own = comm.get_rank(), comm.get_local_rank(), dist.get_backend(), starts
    ranks = comm.all_gather(own)
    if comm.is_main_process():
        torch.save(ranks, folder / "ranks")


def test_two_processes_meet_at_a_free_port_that_is_named(tmp_path, capfd):
    launch(say_who_is_there, 2, args=(tmp_path,))
    starts = multiprocessing.get_start_method()  # of loading processes, as in one process
    assert torch.load(tmp_path / "ranks") == [(0, 0, "gloo", starts), (1, 1, "gloo", starts)]
    assert "meet at tcp://127.0.0.1:" in capfd.readouterr().out


def second_process(do: str) -> None:
    """The second process fails in the given way while the first waits for it."""
    if comm.get_rank() == 1:
        if do == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif do == "raise":
            raise KeyError("a bug")
        time.sleep(600)
    comm.synchronize()


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.usefixtures("fork_server")
@pytest.mark.parametrize(
    ("do", "timeout", "message"),
    [
        ("die", 60, r"^process 1 of 2 \(machine 0\) was ended by SIGKILL .*others were stopped"),
        ("raise", 60, r"^process 1 of 2 \(machine 0\) failed: KeyError: 'a bug'; the others"),
        slow("hang", 5, r"^process 0 of 2 .*lost the others: .*[Tt]imed out.*5 s .*--dist-timeout"),
    ],
)
def test_a_process_that_fails_ends_the_others_and_is_named(do, timeout, message):
    with pytest.raises(ProcessFailure, match=message):
        launch(second_process, 2, args=(do,), timeout=timedelta(seconds=timeout))


def end_in_own_time(folder, launcher):
    """Stop like a training that a scheduler signals, through the process `launcher`."""
    came = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    comm.synchronize()
    if comm.get_rank() == 0:
        os.kill(launcher, signal.SIGTERM)
    while not came:
        time.sleep(0.05)
    time.sleep(comm.get_rank())
    (folder / f"saved{comm.get_rank()}").touch()
    raise SystemExit(75)


@pytest.mark.usefixtures("fork_server")
def test_sigterm_reaches_the_processes_which_end_in_their_own_time(tmp_path):
    with pytest.raises(ProcessFailure, match="^$") as failure:
        launch(end_in_own_time, 2, args=(tmp_path, os.getpid()))
    assert failure.value.exit_code == 75
    assert {p.name for p in tmp_path.iterdir()} == {"saved0", "saved1"}


SIGTERM, SIGABRT, SIGKILL = -signal.SIGTERM, -signal.SIGABRT, -signal.SIGKILL
BUG = "Traceback\nValueError: a bug"
LOST = "Traceback\nd2_isonet.distributed.meeting.MeetingError: process 1 lost the others: reason"


@pytest.mark.parametrize(
    ("ends", "received", "message", "code"),
    [
        ([(SIGABRT, BUG)], [], "process 0 .* failed: ValueError: a bug", 1),
        ([(SIGABRT, ""), (1, BUG)], [], "process 1 .*ValueError", 1),
        ([(SIGABRT, ""), (SIGKILL, "")], [], "process 1 .* was ended by SIGKILL", 137),
        ([(1, LOST), (SIGKILL, "")], [], "process 1 .* was ended by SIGKILL", 137),
        ([(SIGABRT, ""), (2, "")], [], "^$", 2),
        ([(1, LOST), (SIGABRT, "")], [], "was ended by SIGABRT", 134),
        ([(SIGABRT, ""), (75, "")], [15], "^$", 75),
        ([(75, ""), (1, BUG)], [15], "process 1 .*ValueError", 1),
        ([(SIGTERM, ""), (75, "")], [15], "", 75),
        ([(-signal.SIGINT, "")], [2], "ended by SIGINT outside of the training's steps", 130),
        ([(SIGTERM, "")], [], "process 0 .* was ended by SIGTERM", 143),
    ],
)  # fmt: skip
def test_the_process_that_failed_first_is_named_by_its_own_error(ends, received, message, code):
    members = [_End(Member(i, 2, i, 2), *end, received) for i, end in enumerate(ends)]
    culprit = min(members, key=_End.rank_of_blame)
    assert re.search(message, culprit.message()) and culprit.exit_code() == code
