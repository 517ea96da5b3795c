"""Loading processes outlive signals; a process of several ends with the one that started it."""

import multiprocessing
import os
import signal
import subprocess
import time

import pytest
from child_processes import fork, wait
from detectron2.data import DatasetFromList
from torch.utils.data import DataLoader

from d2_isonet.distributed import lifetime
from d2_isonet.distributed.lifetime import end_with_parent, with_loaders_that_outlive_signals
from d2_isonet.distributed.preemption import PREEMPTED, SIGNALS, end_at_once


class ProcessNumber:
    """A data set whose items are the loading process's id."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> int:
        return os.getpid()


@pytest.fixture
def batches():
    loader = DataLoader(ProcessNumber(), num_workers=1, prefetch_factor=1)
    return iter(with_loaders_that_outlive_signals(loader))


def test_a_loading_process_outlives_signals_of_others(batches):
    process = int(next(batches))
    for number in SIGNALS:
        subprocess.run(["kill", f"-{number}", str(process)], check=True)
    assert [int(next(batches)) for _ in range(10)] == [process] * 10


def test_its_own_training_process_ends_it(batches):
    process = next(x for x in multiprocessing.active_children() if x.pid == int(next(batches)))
    process.terminate()
    process.join(10)
    assert process.exitcode == 0


def test_a_loader_inside_another_is_found_and_keeps_its_own_preparation():
    loader = DataLoader(ProcessNumber(), num_workers=1, worker_init_fn=print)
    outer = DatasetFromList([1])
    outer.dataset = loader
    assert with_loaders_that_outlive_signals(outer) is outer
    assert loader.worker_init_fn.args == (print,)


def test_a_process_ends_with_the_one_that_started_it(tmp_path, monkeypatch):
    saved = tmp_path / "saved"

    def training() -> None:
        signal.signal(signal.SIGTERM, lambda *_: (saved.touch(), time.sleep(600)))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.setpgid(0, 0)
        monkeypatch.setattr(lifetime, "_SECONDS_TO_SAVE", 0.5)
        end_with_parent()
        (tmp_path / "process").write_text(str(os.getpid()))
        time.sleep(600)

    def launcher() -> None:
        fork(training, tmp_path / "log")
        until((tmp_path / "process").exists)

    def until(condition) -> None:
        end = time.monotonic() + 30
        while not condition() and time.monotonic() < end:
            time.sleep(0.05)

    assert wait(fork(launcher, tmp_path / "log")) == 0
    number = (tmp_path / "process").read_text()
    until(lambda: not os.path.exists(f"/proc/{number}") or is_zombie(number))
    assert saved.exists() and (not os.path.exists(f"/proc/{number}") or is_zombie(number))


def is_zombie(number: str) -> bool:
    with open(f"/proc/{number}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"


def test_a_fork_that_is_ended_at_once_leaves_the_children_of_its_parent(batches, tmp_path):
    process = int(next(batches))
    assert wait(fork(lambda: end_at_once(signal.SIGTERM), tmp_path / "log")) == PREEMPTED
    assert [int(next(batches)) for _ in range(10)] == [process] * 10
