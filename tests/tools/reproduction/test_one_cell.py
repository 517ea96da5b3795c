"""The tables of the papers as cells: what is run, what is kept, what is printed."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from reproduction import one_cell, runner
from reproduction.cells import (
    CLASSIFICATION,
    Cell,
    Folders,
    arguments,
    made_with,
    read_result,
    settings,
    write_result,
)

# A training that converges at a small learning rate only.
SCRIPT = """
import json, pathlib, sys
values = dict(word.split("=", 1) for word in sys.argv if "=" in word)
out = pathlib.Path(values["OUTPUT_DIR"])
(out / "backbone.pth").write_text("weights")
(out / "model_final.pth").write_text("weights")
rate = float(values.get("SOLVER.BASE_LR", 0))
print("said", values)
if rate > 0.5:
    raise FloatingPointError("Loss became infinite or NaN")
top1 = 80.0 + int(values["SEED"]) if rate < 0.05 else 10.0
(out / "metrics.json").write_text(json.dumps({"iteration": 1, "classification/top1": top1}))
"""
YAML = "configs/Base-ISONet.yaml"


@pytest.fixture
def folders(tmp_path) -> Folders:
    return Folders(tmp_path / "small", tmp_path / "output", tmp_path / "data")


@pytest.fixture
def cell(tmp_path, monkeypatch) -> Cell:
    monkeypatch.setattr(one_cell, "shifts", lambda folder: {})
    (tmp_path / "script.py").write_text(SCRIPT)
    script = str(tmp_path / "script.py")
    monkeypatch.setitem(one_cell.measures.__globals__["_METRICS"], script,
                        {"top-1": "classification/top1"})  # fmt: skip
    return Cell("set/network", script, YAML, learning_rates=(1.0, 0.1, 0.01))


def test_the_next_learning_rate_is_tried_until_one_converges(cell, folders):
    result = one_cell.run_cell(cell, 2, folders)  # nothing is known of seed 1
    assert [a["learning_rate"] for a in result["attempts"]] == [1.0, 0.1, 0.01]
    assert [a["diverged"] for a in result["attempts"]] == [True, False, False]
    assert result["measures"] == {"top-1": 82.0}
    assert read_result(folders, cell, 2) == result and result["settings"] == settings(cell)
    assert "SEED=2" in result["attempts"][-1]["command"]
    assert result["attempts"][-1]["command"].startswith(f"python {cell.script} --config-file")
    assert {"commit", "machine", "torch", "seconds", "date"} <= set(result)


def test_a_result_of_other_settings_is_not_shown(cell, folders):
    one_cell.run_cell(cell, 1, folders)
    assert read_result(folders, cell, 1)
    assert read_result(folders, replace(cell, opts=("SOLVER.MAX_ITER=9",)), 1) is None


def test_the_search_ends_where_accuracy_falls_and_the_best_counts(cell, folders):
    script = SCRIPT.replace("80.0 + int", "1000 * rate + 40 + int").replace("< 0.05", "< 0.5")
    Path(cell.script).write_text(script)
    result = one_cell.run_cell(replace(cell, learning_rates=(0.03, 0.01, 0.003)), 1, folders)
    assert [a["learning_rate"] for a in result["attempts"]] == [0.03, 0.01]
    assert result["learning_rate"] == 0.03
    assert result["measures"]["top-1"] == pytest.approx(71)


def test_weights_are_made_again_by_the_best_learning_rate_between_worse_ones(cell, folders):
    cell = replace(cell, learning_rates=(0.04, 0.03, 0.01))
    whole = one_cell.run_cell(cell, 1, folders)
    accuracies = (70.0, 81.0, 60.0)  # without the middle one, accuracy would have fallen
    attempts = [
        {**whole["attempts"][0], "learning_rate": rate, "measures": {"top-1": accuracy}}
        for rate, accuracy in zip(cell.learning_rates, accuracies, strict=True)
    ]
    write_result(folders, cell, 1, {**whole, "attempts": attempts, "learning_rate": 0.03})
    again = one_cell.run_cell(cell, 1, folders, again=True)
    assert [a["measures"]["top-1"] for a in again["attempts"]] == [70.0, 81.0, 60.0]
    assert again["learning_rate"] == 0.03
    assert (folders.weights(cell, 1) / "backbone.pth").is_file()


def test_a_search_that_was_broken_off_goes_on(cell, folders):
    whole = one_cell.run_cell(cell, 1, folders)
    part = {**whole, "attempts": whole["attempts"][:1], "measures": {}, "learning_rate": None}
    write_result(folders, cell, 1, part)
    assert not one_cell.is_complete(cell, 1, folders)
    again = one_cell.run_cell(cell, 1, folders)
    assert [a["learning_rate"] for a in again["attempts"]] == [1.0, 0.1, 0.01]
    assert one_cell.is_complete(cell, 1, folders)


def test_later_seeds_take_the_learning_rate_of_the_first(cell, folders):
    cell = replace(cell, learning_rates=(1.0, 0.1, 0.01, 0.001))
    assert one_cell.run_cell(cell, 1, folders)["learning_rate"] == 0.01
    second = one_cell.run_cell(cell, 2, folders)
    assert [attempt["learning_rate"] for attempt in second["attempts"]] == [0.01]
    hopeless = replace(cell, name="hopeless", learning_rates=(1.0, 0.1))
    one_cell.run_cell(hopeless, 1, folders)
    second = one_cell.run_cell(hopeless, 2, folders)
    assert [attempt["learning_rate"] for attempt in second["attempts"]] == [0.1]


def test_a_later_seed_that_diverges_takes_the_next_smaller_rate_that_converges(cell, folders):
    cell = replace(cell, learning_rates=(1.0, 0.1, 0.01, 0.001))
    first = one_cell.run_cell(cell, 1, folders)
    write_result(folders, cell, 1, {**first, "learning_rate": 0.1})  # it would have been luckier
    second = one_cell.run_cell(cell, 2, folders)
    assert [attempt["learning_rate"] for attempt in second["attempts"]] == [0.1, 0.01]
    assert second["learning_rate"] == 0.01
    assert one_cell.is_complete(cell, 2, folders)
    unlucky = {**second, "attempts": second["attempts"][:1], "measures": {}, "learning_rate": None}
    write_result(folders, cell, 2, unlucky)  # stored before this rule
    assert not one_cell.is_complete(cell, 2, folders)


def test_no_learning_rate_that_converges_is_a_result_too(cell, folders):
    result = one_cell.run_cell(replace(cell, learning_rates=(1.0, 0.1)), 1, folders)
    assert result["measures"] == {}
    assert result["attempts"][1]["measures"] == {"top-1": 10.0}


@pytest.mark.parametrize("steps", [1, 2], ids=["found by the evaluation", "found by the loss"])
def test_a_real_training_that_diverges_is_a_result_and_the_next_rate_is_tried(
    folders, tmp_path, monkeypatch, steps
):
    for name in [
        f"{x}/{i}" for x in ("train/a", "train/b", "val/a", "val/b") for i in range(steps)
    ]:
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), "red" if "/a/" in name else "blue").save(path)
    words = ["--data-root", str(tmp_path / "images")]
    monkeypatch.setattr(one_cell, "data_arguments", lambda cell, data: words)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    opts = ("SOLVER.MAX_EPOCHS=2", "SOLVER.IMS_PER_BATCH=2", "SOLVER.REFERENCE_WORLD_SIZE=0",
            "SOLVER.WARMUP_ITERS=0", "SOLVER.ORTHO_COEFF=0", "DATALOADER.NUM_WORKERS=0",
            "INPUT.CLASSIFICATION.CROP_SIZE=32", "MODEL.DEVICE=cpu")  # fmt: skip
    cell = Cell("images/network", CLASSIFICATION, "configs/imagenet/risonet18.yaml", opts=opts,
                learning_rates=(1e30, 1e-3), converges_at=0)  # fmt: skip
    result = one_cell.run_cell(cell, 1, folders, threads=1)
    assert [a["diverged"] for a in result["attempts"]] == [True, False]
    failed = folders.training(cell, 1, 1e30)
    assert any(failed.glob("non_finite_*.json")) == (steps > 1)
    assert result["learning_rate"] == 1e-3 and result["measures"]["top-1"] >= 0


def test_what_fails_otherwise_stops_with_the_end_of_its_log(cell, folders):
    Path(cell.script).write_text("import sys; print('the reason'); sys.exit(3)")
    with pytest.raises(RuntimeError, match="the reason"):
        one_cell.run_cell(cell, 1, folders)
    assert read_result(folders, cell, 1) is None


def test_a_stored_cell_is_not_run_again_and_weights_come_first(cell, folders, monkeypatch):
    cell = replace(cell, learning_rates=())
    ran = []
    monkeypatch.setattr(runner, "ProcessPoolExecutor", _InThisProcess)

    def run_cell(cell, seed, *_):
        ran.append(cell.name)
        return one_cell.run_cell(cell, seed, folders)

    monkeypatch.setattr(runner, "run_cell", run_cell)
    user = replace(cell, name="user", weights=cell)
    stored = replace(cell, name="stored")
    write_result(folders, stored, 1, _RESULT)
    runner.run_jobs([(user, 1), (stored, 1), (cell, 1)], folders, 2, 1)
    assert ran == [cell.name, "user"]


def test_the_others_go_on_where_a_cell_fails(cell, folders, monkeypatch):
    monkeypatch.setattr(runner, "ProcessPoolExecutor", _InThisProcess)
    Path(cell.script).write_text("raise SystemExit(3)")
    fine = replace(cell, name="fine", script=str(folders.results.parent / "fine.py"))
    Path(fine.script).write_text(SCRIPT)
    user = replace(fine, name="user", weights=cell)
    monkeypatch.setitem(one_cell.measures.__globals__["_METRICS"], fine.script,
                        {"top-1": "classification/top1"})  # fmt: skip
    failed = runner.run_jobs([(cell, 1), (user, 1), (fine, 1)], folders, 1, 1)
    assert read_result(folders, fine, 1)["measures"] == {"top-1": 81.0}
    assert len(failed) == 2 and "user seed 1: not run, it needs set/network" in failed


def test_weights_that_were_not_kept_are_made_again(cell, folders, monkeypatch):
    cell = replace(cell, learning_rates=())
    user = replace(cell, name="user", weights=cell)
    write_result(folders, cell, 1, _RESULT)
    jobs = [(cell, 1), (user, 1)]
    assert runner._is_to_be_run((cell, 1), folders, jobs)
    folder = folders.training(cell, 1)
    folder.mkdir(parents=True)
    other = made_with(folders, replace(cell, opts=("A=1",)), 1)
    (folder / "cell.json").write_text(json.dumps(other))
    assert runner._is_to_be_run((cell, 1), folders, jobs)  # those are another network's
    assert len(one_cell.run_cell(cell, 1, folders, again=True)["attempts"]) == 1
    assert json.loads((folder / "cell.json").read_text()) == made_with(folders, cell, 1)
    assert not runner._is_to_be_run((cell, 1), folders, jobs)


def test_a_training_that_failed_is_no_reason_to_run_it_again(cell, folders):
    cell = replace(cell, learning_rates=())
    write_result(folders, cell, 1, {**_RESULT, "measures": {}})
    user = replace(cell, name="user", weights=cell)
    assert not runner._is_to_be_run((cell, 1), folders, [(cell, 1), (user, 1)])
    assert one_cell.run_cell(user, 1, folders)["measures"] == {}


def test_a_change_of_the_weights_or_the_yaml_is_another_cell(cell, monkeypatch):
    user = replace(cell, name="user", weights=cell)
    before = settings(user)
    assert settings(replace(user, weights=replace(cell, opts=("A=1",)))) != before
    monkeypatch.setitem(settings.__globals__, "_fingerprint", lambda config: "other")
    assert settings(user) != before


def test_two_processes_do_not_run_one_cell(cell, folders):
    with one_cell._alone(folders.lock(cell, 1)) as alone:
        assert alone
        assert one_cell.run_cell(cell, 1, folders) is None
    assert one_cell.run_cell(cell, 1, folders)["measures"]
    assert not folders.lock(cell, 1).exists()


_ATTEMPT = {"learning_rate": None, "measures": {"top-1": 50.0}, "converged": True, "shifts": {}}
_RESULT = {"measures": {"top-1": 50.0}, "learning_rate": None, "seconds": 1.0,
           "attempts": [_ATTEMPT], "commit": "", "machine": "", "torch": ""}  # fmt: skip


class _InThisProcess:
    """A pool that runs at once."""

    def __init__(self, *args, **kwargs):
        pass

    def shutdown(self, wait):
        pass

    def submit(self, with_parent, function, *args):
        from concurrent.futures import Future

        future = Future()
        try:
            future.set_result(function(*args))
        except RuntimeError as error:
            future.set_exception(error)
        return future


_WEIGHTS = Cell("b", CLASSIFICATION, YAML)


def test_the_arguments_are_those_a_person_types(folders):
    cell = Cell("a", CLASSIFICATION, YAML, opts=("X=1",), weights=_WEIGHTS, processes=8)
    words = arguments(cell, 3, Folders(Path("r"), Path("o"), Path("d")), ["--data-root", "d"], 0.1)
    assert words == ["--config-file", YAML, "--data-root", "d", "--num-gpus", "8",
                     "MODEL.WEIGHTS=o/b/seed3/backbone.pth", "X=1", "SOLVER.BASE_LR=0.1",
                     "SEED=3", "OUTPUT_DIR=o/a/seed3/rate0.1"]  # fmt: skip
