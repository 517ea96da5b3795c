"""Cells of several runs, of longer lists of rates and of trainings that were broken off."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pytest
from reproduction import one_cell, runner
from reproduction.cells import Cell, Folders, made_with, read_result, write_result
from reproduction.search import is_complete
from scripts import ENVIRONMENT

# The larger the learning rate the better, up to 0.03; a backbone holds the rate it was made with.
SCRIPT = """
import json, pathlib, sys
values = dict(word.split("=", 1) for word in sys.argv if "=" in word)
out = pathlib.Path(values["OUTPUT_DIR"])
rate = float(values["SOLVER.BASE_LR"])
with open(out.parent / "runs", "a") as runs:
    runs.write(f"{rate} {'--resume' in sys.argv}\\n")
if (out / "stop").exists():
    raise SystemExit(75)
for name in ("backbone.pth", "model_final.pth", "last_checkpoint"):
    (out / name).write_text("weights")
top1 = 50 + 200 * rate if rate <= 0.03 else 45
(out / "metrics.json").write_text(json.dumps({"iteration": 1, "classification/top1": top1}))
"""
YAML = "configs/Base-ISONet.yaml"


class Pool:
    """A pool that runs at once, in this process; a script that says so kills it."""

    def __init__(self, *args):
        pass

    def shutdown(self, wait):
        pass

    def submit(self, with_parent, function, cell, *args):
        future = Future()
        try:
            if "kill" in Path(cell.script).read_text():
                raise BrokenProcessPool("terminated abruptly")
            future.set_result(function(cell, *args))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def folders(tmp_path) -> Folders:
    return Folders(tmp_path / "small", tmp_path / "output", tmp_path / "data")


@pytest.fixture
def new_cell(tmp_path, monkeypatch):
    """Cells by name, each with a script of its own."""
    monkeypatch.setattr(one_cell, "shifts", lambda folder: {})
    monkeypatch.setattr(runner, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(runner, "SECONDS", 0.0)

    def new(name: str, script: str = SCRIPT, rates=(0.03, 0.01, 0.003), **values) -> Cell:
        path = tmp_path / f"{name}.py"
        path.write_text(script)
        metrics = one_cell.measures.__globals__["_METRICS"]
        monkeypatch.setitem(metrics, str(path), {"top-1": "classification/top1"})
        return Cell(name, str(path), YAML, learning_rates=rates, **values)

    return new


def runs(cell: Cell, seed: int, folders: Folders) -> list[str]:
    """The rate of each run of the script, and whether it was resumed."""
    path = folders.training(cell, seed) / "runs"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def rates(cell: Cell, seed: int, folders: Folders) -> list[float]:
    return [attempt["learning_rate"] for attempt in read_result(folders, cell, seed)["attempts"]]


def test_later_seeds_wait_while_another_run_is_at_the_first(new_cell, folders, monkeypatch, capsys):
    cell = new_cell("a", rates=(0.1, 0.03, 0.01))
    looks = iter([True, True, False])

    def is_locked(lock) -> bool:  # the other run ends behind the second look
        if lock != folders.lock(cell, 1):
            return False
        locked = next(looks, False)
        if not locked and read_result(folders, cell, 1) is None:
            one_cell.run_cell(cell, 1, folders)
        return locked

    monkeypatch.setattr(runner, "is_locked", is_locked)
    assert runner.run_jobs([(cell, seed) for seed in (1, 2, 3)], folders, 2, 1) == []
    assert [rates(cell, seed, folders) for seed in (1, 2, 3)] == [[0.1, 0.03, 0.01], [0.03], [0.03]]
    assert len(runs(cell, 1, folders)) == 3
    said = capsys.readouterr().out
    assert said.count("a seed 1: another process is running it; waiting") == 1
    assert "a seed 1: has its result" in said


def test_what_another_run_has_finished_meanwhile_is_not_run_again(new_cell, folders, monkeypatch):
    first, second = new_cell("a"), new_cell("b")
    finish = one_cell.run_cell

    def run_cell(cell, *arguments):
        finish(second, 1, folders)  # by another run
        return finish(cell, *arguments)

    monkeypatch.setattr(runner, "run_cell", run_cell)
    runner.run_jobs([(first, 1), (second, 1)], folders, 1, 1)
    assert len(runs(second, 1, folders)) == 2
    assert finish(second, 1, folders) == read_result(folders, second, 1)  # found under the lock
    assert len(runs(second, 1, folders)) == 2


PARENT = """
import multiprocessing, pathlib, sys, time
from reproduction.runner import run_with_parent

def train(ready, saved):
    import signal
    def save(*_):
        pathlib.Path(saved).touch()
        raise SystemExit(75)
    signal.signal(signal.SIGTERM, save)
    pathlib.Path(ready).touch()
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    context.Process(target=run_with_parent, args=(train, *sys.argv[1:])).start()
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_training_is_saved_and_ends_when_its_run_is_killed(number, tmp_path):
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(ready), str(saved)],
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    wait_for(ready)
    parent.send_signal(number)
    assert parent.communicate(timeout=30)[0] == b""  # until no process holds its output any more
    assert saved.exists() and parent.returncode == -number


def wait_for(path: Path) -> None:
    end = time.time() + 120  # a busy machine
    while not path.exists() and time.time() < end:
        time.sleep(0.02)
    assert path.exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [("kill", "a seed 1: failed, its process was killed: is there enough memory"),
     ("assert False", "a seed 1: failed, see .*output.log:(.|\n)*AssertionError"),
     ("", "a seed 1: .*metrics.json")],
)  # fmt: skip
def test_the_others_go_on_where_one_is_killed_or_fails_without_a_word(
    script, message, new_cell, folders
):
    broken, fine = new_cell("a", script), new_cell("b")
    (failed,) = runner.run_jobs([(broken, 1), (fine, 1)], folders, 1, 1)
    assert re.match(message, failed)
    assert is_complete(fine, 1, folders) and read_result(folders, broken, 1) is None


def test_a_training_that_evaluates_nothing_is_no_result(new_cell, folders):
    script = SCRIPT.replace("classification/top1", "classification/top2")
    with pytest.raises(ValueError, match="metrics.json has no classification/top1"):
        one_cell.run_cell(new_cell("a", script), 1, folders)


def test_a_longer_list_of_rates_adds_to_what_was_tried(new_cell, folders):
    cell = new_cell("a", rates=(0.01, 0.003))
    jobs = [(cell, seed) for seed in (1, 2)]
    runner.run_jobs(jobs, folders, 1, 1)
    assert rates(cell, 1, folders) == [0.01, 0.003] and rates(cell, 2, folders) == [0.01]
    longer = replace(cell, learning_rates=(0.1, 0.03, 0.01, 0.003))
    assert not is_complete(longer, 1, folders)
    runner.run_jobs([(longer, seed) for seed in (1, 2)], folders, 1, 1)
    assert len(runs(cell, 1, folders)) == 4  # neither of the old ones again
    assert read_result(folders, longer, 1)["learning_rate"] == 0.03
    assert read_result(folders, longer, 2)["learning_rate"] == 0.03
    assert read_result(folders, longer, 2)["measures"] == {"top-1": pytest.approx(56)}


def test_a_result_of_other_weights_is_none(new_cell, folders):
    weights = new_cell("a", rates=(0.01, 0.003))
    user = new_cell("b", weights=weights)
    jobs = [(weights, 1), (user, 1)]
    runner.run_jobs(jobs, folders, 1, 1)
    assert read_result(folders, user, 1)["weights_learning_rate"] == 0.01
    longer = replace(weights, learning_rates=(0.03, 0.01, 0.003))
    user_of_longer = replace(user, weights=longer)
    runner.run_jobs([(longer, 1), (user_of_longer, 1)], folders, 1, 1)
    assert read_result(folders, user_of_longer, 1)["weights_learning_rate"] == 0.03
    assert len(runs(user, 1, folders)) == 4  # the search again, from the new weights


def test_weights_of_an_earlier_run_that_are_still_the_best_are_made_again(new_cell, folders):
    weights = new_cell("a", rates=(0.03, 0.01))
    one_cell.run_cell(weights, 1, folders)
    shutil.rmtree(folders.training(weights, 1, 0.03))
    longer = replace(weights, learning_rates=(0.1, 0.03, 0.01))  # 0.1 is worse
    user = new_cell("b", weights=longer)
    assert runner.run_jobs([(longer, 1), (user, 1)], folders, 1, 1) == []
    assert runs(longer, 1, folders) == [f"{rate} False" for rate in (0.03, 0.01, 0.1, 0.03)]
    assert one_cell.has_weights(longer, 1, folders) and is_complete(user, 1, folders)


def broken_off(cell: Cell, folders: Folders, *names: str) -> Path:
    """The folder of a training of seed 1 at 0.01 that has left these files."""
    folder = folders.training(cell, 1, 0.01)
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("model_0000099.pth")
    (folder / "cell.json").write_text(json.dumps(made_with(folders, cell, 1)))
    return folder


def test_a_training_that_was_broken_off_is_resumed(new_cell, folders):
    cell = new_cell("a", rates=(0.01,))
    folder = broken_off(cell, folders, "stop", "last_checkpoint")
    with pytest.raises(RuntimeError, match="failed"):
        one_cell.run_cell(cell, 1, folders)
    assert (folder / "last_checkpoint").read_text() == "model_0000099.pth"
    (folder / "stop").unlink()
    result = one_cell.run_cell(cell, 1, folders)
    assert runs(cell, 1, folders) == ["0.01 True", "0.01 True"]
    assert "--resume" not in result["attempts"][0]["command"]


def test_a_training_that_has_diverged_or_is_another_s_is_made_anew(new_cell, folders):
    cell = new_cell("a", rates=(0.01,))
    broken_off(cell, folders, "last_checkpoint", "non_finite_9.json")
    one_cell.run_cell(cell, 1, folders)
    other = replace(cell, opts=("A=1",))
    one_cell.run_cell(other, 1, folders)
    assert runs(cell, 1, folders) == ["0.01 False", "0.01 False"]


def test_a_stored_seed_whose_rate_was_not_the_first_s_is_made_again(new_cell, folders):
    """Stored by a run that did not wait for the first seed."""
    cell = new_cell("a", rates=(0.1, 0.03, 0.01))
    alone = one_cell.run_cell(cell, 2, folders)
    assert alone["learning_rate"] == 0.1
    one_cell.run_cell(cell, 1, folders)
    assert not is_complete(cell, 2, folders)
    assert one_cell.run_cell(cell, 2, folders)["learning_rate"] == 0.03
    write_result(folders, cell, 3, {**alone, "attempts": []})
    assert not is_complete(cell, 3, folders)


def test_rates_that_a_killed_search_has_finished_are_not_trained_again(new_cell, folders):
    cell = new_cell("a", rates=(0.1, 0.03, 0.01))
    whole = one_cell.run_cell(cell, 1, folders, commit="first")
    folders.result(cell).unlink()  # killed in the third rate
    shutil.rmtree(folders.training(cell, 1, 0.01))
    again = one_cell.run_cell(cell, 1, folders, commit="second")
    assert len(runs(cell, 1, folders)) == 4 and again["measures"] == whole["measures"]
    assert [attempt["commit"] for attempt in again["attempts"]] == ["first", "first", "second"]
    assert again["commit"] == "first"  # of the training that counts


FALLING = SCRIPT.replace("50 + 200 * rate if rate <= 0.03 else 45", "80 - 100 * rate")


def test_what_a_shorter_list_has_tried_beyond_the_end_of_the_search_does_not_count(
    new_cell, folders
):
    cell = new_cell("a", FALLING, rates=(0.01, 0.003))  # here the smaller the better
    first = one_cell.run_cell(cell, 1, folders)
    write_result(folders, cell, 1, {**first, "learning_rate": 0.01})
    write_result(folders, cell, 2, {**first, "seed": 2})
    assert not is_complete(cell, 2, folders)  # stored by another protocol: 0.01 has converged
    assert one_cell.run_cell(cell, 2, folders)["learning_rate"] == 0.01
    assert len(runs(cell, 2, folders)) == 0  # nothing is trained for it
    assert rates(cell, 2, folders) == [0.01, 0.003] and is_complete(cell, 2, folders)


def test_a_result_tells_the_weights_it_began_with(new_cell, folders, monkeypatch):
    weights = new_cell("a", rates=(0.01,))
    one_cell.run_cell(weights, 1, folders)
    user = new_cell("b", rates=(0.01,), weights=weights)
    script = one_cell._run_script

    def other_run_meanwhile(*arguments):
        stored = read_result(folders, weights, 1)
        write_result(folders, weights, 1, {**stored, "learning_rate": 0.03})
        return script(*arguments)

    monkeypatch.setattr(one_cell, "_run_script", other_run_meanwhile)
    assert one_cell.run_cell(user, 1, folders)["weights_learning_rate"] == 0.01
    assert read_result(folders, user, 1) is None


def test_a_whole_result_is_shown_where_the_first_seed_fails(new_cell, folders, capsys):
    cell = new_cell("a", rates=(0.01, 0.003))
    runner.run_jobs([(cell, 1), (cell, 2)], folders, 1, 1)
    Path(cell.script).write_text("assert False")
    longer = replace(cell, learning_rates=(0.03, 0.01, 0.003))
    (failed,) = runner.run_jobs([(longer, 1), (longer, 2)], folders, 1, 1)
    assert "a seed 1: failed" in failed
    assert "a seed 2: has its result" in capsys.readouterr().out


def test_a_lock_that_was_removed_is_nobody_s(new_cell, folders):
    lock = folders.lock(new_cell("a"), 1)
    lock.parent.mkdir(parents=True)
    assert not one_cell.is_locked(lock)
    with open(lock, "w") as file:
        lock.unlink()  # another process has ended between open and flock
        assert not one_cell._is_taken(file, lock)
    with one_cell._alone(lock) as alone:
        assert alone and one_cell.is_locked(lock) and lock.exists()
    assert not lock.exists()
