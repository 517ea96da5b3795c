"""The line that tells how long the cells that run still take."""

import json
import os
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from reproduction import runner
from reproduction.cells import Cell, Folders

YAML = "configs/Base-ISONet.yaml"
CELL = Cell("images/net/depth20", "train_net.py", YAML, learning_rates=(0.1, 0.03))
WITHOUT_RATES = Cell("net", "train_net.py", YAML)


@pytest.fixture
def folders(tmp_path) -> Folders:
    return Folders(tmp_path / "small", tmp_path / "output", tmp_path / "data")


def write(folders: Folders, cell: Cell, rate: float | None, *lines: str, age: float = 0) -> Path:
    path = folders.training(cell, 1, rate) / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    os.utime(path, (time.time() - age,) * 2)
    return path


def line(**values: float) -> str:
    return json.dumps(values) + "\n"


def test_the_training_that_wrote_last_tells_its_time(folders):
    write(folders, CELL, 0.1, line(eta_seconds=700.0, iteration=9), age=60)
    write(folders, CELL, 0.03, line(eta_seconds=99.0), line(eta_seconds=88.4, iteration=39))
    write(folders, WITHOUT_RATES, None, line(eta_seconds=3700.0, iteration=9))
    told = runner.time_left([(CELL, 1), (WITHOUT_RATES, 1), (CELL, 2)], folders)
    assert told.split("; ") == [
        "net/depth20 seed 1 at 0.03: 01:28 left",
        "net seed 1: 1:01:40 left",
        "net/depth20 seed 2",
    ]


@pytest.mark.parametrize("end", ["", line(iteration=600, top1=75.0), '{"eta_sec'])
def test_a_training_that_has_begun_evaluates_or_is_writing_tells_its_name(folders, end):
    write(folders, CELL, 0.1, *([line(eta_seconds=5.0)] if end else []), end)
    assert runner.time_left([(CELL, 1)], folders) == "net/depth20 seed 1"


def test_only_the_end_of_a_long_file_is_read(folders, monkeypatch):
    write(folders, CELL, 0.1, "no json\n" * 4000, line(eta_seconds=61.0))
    monkeypatch.setattr(runner, "_TAIL", 40)
    assert runner.time_left([(CELL, 1)], folders).endswith("at 0.1: 01:01 left")


def test_a_training_whose_folder_goes_meanwhile_does_not_stop_the_others(folders, monkeypatch):
    path = write(folders, CELL, 0.1, line(eta_seconds=61.0))
    is_file = Path.is_file

    def then_removed(self: Path) -> bool:
        found = is_file(self)
        path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(runner.Path, "is_file", then_removed)
    assert runner.time_left([(CELL, 1)], folders) == "net/depth20 seed 1"


def test_the_bar_tells_it_while_a_cell_runs(folders, monkeypatch, capsys):
    future: Future = Future()

    class Pool:
        def __init__(self, *args):
            pass

        def submit(self, *args):
            write(folders, CELL, 0.1, line(eta_seconds=61.0))
            return future

        def shutdown(self, wait):
            pass

    def wait(running, *args):  # the second look finds it done
        looks.append(dict(running))
        if len(looks) == 2:
            result = {"measures": {"top-1": 50.0}, "seconds": 1, "attempts": []}
            future.set_result(result)
        return real_wait(running, 0)

    looks: list[dict] = []
    real_wait = runner.wait
    monkeypatch.setattr(runner, "wait", wait)
    monkeypatch.setattr(runner, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(runner._Run, "_repeat", lambda self, job: None)
    runner.run_jobs([(CELL, 1)], folders, 1, 1)
    assert "0/1" in (told := capsys.readouterr().err)
    assert "net/depth20 seed 1 at 0.1: 01:01 left" in told
