"""Weights & Biases: logged values, one run across a resume, and failures that end no training."""

import importlib.machinery
import importlib.util
import json
import sys
import time
from types import SimpleNamespace

import pytest
from small_runs import run, small_config, trainer_class

from d2_isonet.config.loading import load_config
from d2_isonet.preflight.training import check_training_options

ENABLED = ["WANDB.ENABLED", "True", "WANDB.PROJECT", "toys", "TEST.EVAL_PERIOD", "2"]


class FakeRun:
    """Records the calls of a wandb run; `broken` raises at every log."""

    def __init__(self, broken: bool = False):
        self.logged, self.finished, self.broken = [], 0, broken

    def define_metric(self, name: str, step_metric: str) -> None:
        self.step_metric = step_metric

    def log(self, values: dict) -> None:
        if self.broken:
            raise ConnectionError("no route")
        self.logged.append(values)

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def service(monkeypatch):
    """A fake wandb that records its calls; `init` may be replaced."""
    fake = SimpleNamespace(runs=[], options=[])

    def init(**options) -> FakeRun:
        fake.options.append(options)
        fake.runs.append(FakeRun())
        return fake.runs[-1]

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_every_scalar_of_the_log_is_sent_over_its_iteration(service, tmp_path):
    run(small_config(tmp_path, *ENABLED), trainer_class(scores=[1.0, 2.0, 3.0]))
    (sent,) = service.runs
    assert (sent.step_metric, sent.finished) == ("iteration", 1)
    by_name = {}
    for line in sent.logged:
        for name, value in line.items():
            by_name.setdefault(name, {})[line["iteration"]] = value
    lines = [json.loads(x) for x in (tmp_path / "metrics.json").read_text().splitlines()]
    last = {k: x for line in lines for k, x in line.items() if k != "iteration"}
    assert {name: list(x.values())[-1] for name, x in by_name.items() if name in last} == last
    assert {"total_loss", "loss_ortho", "lr", "toy/score"} <= set(last)


def test_a_run_is_described(service, tmp_path):
    run(small_config(tmp_path, *ENABLED, "WANDB.ENTITY", "us", "SOLVER.MAX_ITER", "1"))
    (options,) = service.options
    assert (options["project"], options["entity"]) == ("toys", "us")
    assert options["name"] == options["dir"] == str(tmp_path)
    assert options["config"]["SOLVER"]["BASE_LR"] == 0.05
    assert options["resume"] == "allow"


def test_a_resumed_training_goes_on_with_the_same_run_and_a_new_one_does_not(service, tmp_path):
    run(small_config(tmp_path, *ENABLED, "SOLVER.MAX_ITER", "3"))
    run(small_config(tmp_path, *ENABLED, "SOLVER.MAX_ITER", "6"), resume=True)
    run(small_config(tmp_path, *ENABLED, "SOLVER.MAX_ITER", "3"))
    first, second, third = (options["id"] for options in service.options)
    assert first == second != third
    assert min(line["iteration"] for line in service.runs[1].logged) >= 2


def test_it_is_not_there_unless_it_is_asked_for(service, tmp_path):
    run(small_config(tmp_path, "SOLVER.MAX_ITER", "1"))
    assert not service.runs and not (tmp_path / "wandb_run_id").exists()


def test_only_the_main_process_writes(service, tmp_path, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    trainer = trainer_class()(small_config(tmp_path, *ENABLED))
    assert not any("Writer" in type(hook).__name__ for hook in trainer._hooks)


@pytest.mark.parametrize("failure", ["init", "log"])
def test_a_failure_is_told_once_and_the_training_goes_on(failure, service, tmp_path, caplog):
    def refuse(**_):
        raise ConnectionError("no route")

    service.init = refuse if failure == "init" else lambda **_: FakeRun(broken=True)
    trainer = run(small_config(tmp_path, *ENABLED))
    assert trainer.iter == 6
    told = [r.message for r in caplog.records if "Weights & Biases failed" in r.message]
    assert len(told) == 1
    assert "(ConnectionError: no route): training continues without it" in told[0]


@pytest.mark.parametrize("there", [None, importlib.machinery.ModuleSpec("wandb", None)])
def test_a_missing_package_is_told_before_a_run(there, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: there)
    check_training_options(load_config("", []))
    with pytest.raises(ValueError, match="WANDB.ENABLED True needs wandb, .*pip install wandb"):
        check_training_options(load_config("", ["WANDB.ENABLED", "True"]))


@pytest.mark.slow
def test_the_real_package_writes_a_run_offline_and_goes_on_with_it(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="pip install 'd2_isonet[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    out = tmp_path / "run"
    run(small_config(out, *ENABLED, "SOLVER.MAX_ITER", "3"))
    run(small_config(out, *ENABLED, "SOLVER.MAX_ITER", "6"), resume=True)
    kept = (out / "wandb_run_id").read_text().strip()
    folders = sorted(out.glob("wandb/offline-run-*"))
    assert {folder.name.rpartition("-")[2] for folder in folders} == {kept}
    assert len(folders) == 2
    for folder in folders:
        (record,) = folder.glob("*.wandb")
        end = time.monotonic() + 20  # a process of wandb writes it
        while b"loss_ortho" not in record.read_bytes() and time.monotonic() < end:
            time.sleep(0.1)
        assert b"loss_ortho" in record.read_bytes()
