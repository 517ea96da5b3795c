"""Two runs never share an OUTPUT_DIR, and the lock of a dead one is free."""

import os
import platform
import signal
import time

import pytest
import small_runs
from child_processes import fork, wait
from small_runs import small_config

from d2_isonet.engine import folder_lock
from d2_isonet.engine.folder_lock import NAME, lock_folder, unlock_folder
from d2_isonet.utils.messages import UserError


@pytest.fixture
def owner(tmp_path):
    """A process that has the lock of tmp_path / "run", and a loading process."""

    def own() -> None:
        lock_folder(tmp_path / "run")
        os.fork()
        (tmp_path / "ready").touch()
        time.sleep(600)

    process = fork(own, tmp_path / "log")
    end = time.monotonic() + 30
    while not (tmp_path / "ready").exists() and time.monotonic() < end:
        time.sleep(0.02)
    yield process
    os.killpg(process, signal.SIGKILL)


def test_a_second_run_is_refused_with_the_name_of_the_first_and_moves_nothing(owner, tmp_path):
    config = small_config(tmp_path / "run")
    checkpoint = tmp_path / "run" / "model_0000001.pth"
    checkpoint.touch()
    (tmp_path / "run" / "last_checkpoint").write_text(checkpoint.name)
    with pytest.raises(UserError) as refusal:
        small_runs.run(config)
    assert f"in use by process {owner} on {platform.node()}, started 2" in str(refusal.value)
    assert "set OUTPUT_DIR to another folder" in refusal.value.remedy
    assert checkpoint.exists()


def test_the_lock_of_a_killed_run_is_free_though_its_loading_process_lives(owner, tmp_path):
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    lock_folder(tmp_path / "run")
    assert f"process {os.getpid()} on" in (tmp_path / "run" / NAME).read_text()
    unlock_folder(tmp_path / "run")


def test_a_run_locks_its_folder_again_and_frees_it_at_its_end(tmp_path):
    lock_folder(tmp_path / "run")
    small_runs.run(small_config(tmp_path / "run"))

    def another() -> None:
        assert str(tmp_path / "run") not in folder_lock._held
        lock_folder(tmp_path / "run")

    assert wait(fork(another, tmp_path / "log")) == 0


def test_a_disk_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError("no locks available")

    monkeypatch.setattr(folder_lock.FileLock, "acquire", refuse)
    lock_folder(tmp_path)
    assert "cannot be locked (no locks available): start no other run" in caplog.text
