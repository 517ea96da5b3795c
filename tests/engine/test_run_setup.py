"""Validation and scaling of a config before a model is built."""

from argparse import Namespace

import pytest
from detectron2.utils import comm
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.engine.main import _set_up
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.preflight.files import output_findings
from d2_isonet.preflight.network import check_pixels
from d2_isonet.preflight.training import check_filter_options, check_training_options
from d2_isonet.solver.schedule import scale_to_processes, what_was_scaled


def config(*opts: str):
    return load_config(
        "",
        ["SOLVER.IMS_PER_BATCH", "16", "SOLVER.BASE_LR", "0.02", "SOLVER.MAX_ITER", "90000",
         "SOLVER.STEPS", "(60000,)", "SOLVER.REFERENCE_WORLD_SIZE", "8", *opts],
    )  # fmt: skip


def scaled(monkeypatch, processes: int, *opts: str) -> tuple:
    monkeypatch.setattr(comm, "get_world_size", lambda: processes)
    cfg = config(*opts)
    return cfg, scale_to_processes(cfg)


def test_one_line_tells_all_that_the_linear_rule_changed(monkeypatch):
    line = what_was_scaled(*scaled(monkeypatch, 2, "TEST.EVAL_PERIOD", "5000"))
    assert line == (
        "Scaled from 8 processes (SOLVER.REFERENCE_WORLD_SIZE) to 2: SOLVER.IMS_PER_BATCH 16 -> 4, "
        "SOLVER.BASE_LR 0.02 -> 0.005, SOLVER.MAX_ITER 90000 -> 360000, "
        "SOLVER.STEPS (60000,) -> (240000,), SOLVER.WARMUP_ITERS 1000 -> 4000, "
        "SOLVER.CHECKPOINT_PERIOD 5000 -> 20000, TEST.EVAL_PERIOD 5000 -> 20000"
    )


def test_of_a_schedule_in_epochs_only_batch_and_rate_change(monkeypatch):
    line = what_was_scaled(*scaled(monkeypatch, 2, "SOLVER.MAX_EPOCHS", "90"))
    assert line.endswith(" to 2: SOLVER.IMS_PER_BATCH 16 -> 4, SOLVER.BASE_LR 0.02 -> 0.005")


@pytest.mark.parametrize(
    ("processes", "opts"), [(8, ()), (2, ("SOLVER.REFERENCE_WORLD_SIZE", "0"))]
)
def test_nothing_is_told_where_nothing_changes(processes, opts, monkeypatch):
    assert what_was_scaled(*scaled(monkeypatch, processes, *opts)) == ""


def test_a_period_never_becomes_none(monkeypatch):
    opts = ("TEST.EVAL_PERIOD", "3", "SOLVER.CHECKPOINT_PERIOD", "2")
    _, cfg = scaled(monkeypatch, 64, *opts)
    assert (cfg.TEST.EVAL_PERIOD, cfg.SOLVER.CHECKPOINT_PERIOD) == (1, 1)
    _, cfg = scaled(monkeypatch, 64, "TEST.EVAL_PERIOD", "0")
    assert cfg.TEST.EVAL_PERIOD == 0


@pytest.mark.parametrize(("processes", "steps"), [(2, 4), (1, 16), (4, 1)])
def test_processes_times_parts_may_divide_the_batch(processes, steps, monkeypatch):
    opts = ("SOLVER.REFERENCE_WORLD_SIZE", "0", "SOLVER.ACCUMULATE_STEPS", str(steps))
    assert scaled(monkeypatch, processes, *opts)[1].SOLVER.IMS_PER_BATCH == 16


@pytest.mark.parametrize(
    ("processes", "steps", "message"),
    [
        (2, 3, "IMS_PER_BATCH is 16; .* the 2 processes x 3 .SOLVER.ACCUMULATE_STEPS"),
        (3, 1, "IMS_PER_BATCH is 16; it must be a positive multiple of the 3 processes$"),
        (1, 0, "ACCUMULATE_STEPS is 0; it must be at least 1"),
    ],
)
def test_what_does_not_divide_is_named(processes, steps, message, monkeypatch):
    opts = ("SOLVER.REFERENCE_WORLD_SIZE", "0", "SOLVER.ACCUMULATE_STEPS", str(steps))
    with pytest.raises(ValueError, match=message):
        scaled(monkeypatch, processes, *opts)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.NON_FINITE.ACTION", "skp"], "ACTION is 'skp'.*did you mean skip"),
        (["SOLVER.NON_FINITE.LIMIT", "-1"], "LIMIT is -1; it must be at least 0"),
        (["SOLVER.EMA_DECAY", "1"], "EMA_DECAY is 1.0; it must be at least 0 and below 1"),
        (["SOLVER.BACKBONE_LR_FACTOR", "-0.1"], "BACKBONE_LR_FACTOR is -0.1; .* at least 0"),
        (["SOLVER.RESIDUAL_SCALE_LR_FACTOR", "-0.1"], "SCALE_LR_FACTOR is -0.1; .* at least 0"),
        (["SOLVER.WEIGHT_DECAY_SHIFT", "-1"], "WEIGHT_DECAY_SHIFT is -1.0; .* at least 0"),
        (["SOLVER.BASE_LR", "1e400"], "BASE_LR is inf; it must be finite and at least 0"),
        (["SOLVER.MOMENTUM", "1"], "MOMENTUM is 1.0; it must be at least 0 and below 1"),
        (["SOLVER.ORTHO_COEFF", "-1"], "SOLVER.ORTHO_COEFF is -1.0; it must be at least 0"),
        (["SOLVER.FILTER_ORTHO_COEFF", "-1"], "SOLVER.FILTER_ORTHO_COEFF is -1.0"),
        (["SOLVER.WEIGHT_PROJECTION_PERIOD", "-3"], "WEIGHT_PROJECTION_PERIOD is -3"),
        (["SOLVER.ORTHO_FORM", "exakt"], "SOLVER.ORTHO_FORM is 'exakt'.*mean exact"),
        (["SOLVER.CHECKPOINT_PERIOD", "0"], "CHECKPOINT_PERIOD is 0; it must be at least 1"),
        (["SOLVER.CHECKPOINT_MAX_TO_KEEP", "-1"], "MAX_TO_KEEP is -1; it must be at least 0"),
        (["SOLVER.MAX_ITER", "0"], "SOLVER.MAX_ITER is 0; it must be at least 1"),
        (["SOLVER.STEPS", "(9, 3)"], r"SOLVER.STEPS is \(9, 3\); .*each at least the one before"),
        (["SOLVER.EPOCH_STEPS", "(-1,)"], r"EPOCH_STEPS is \(-1,\); they must be numbers from 0"),
        (["SOLVER.STEPS", "('a',)"], r"SOLVER.STEPS is \('a',\); they must be numbers"),
        (["TEST.CLASSIFICATION_BATCH_SIZE", "0"], "CLASSIFICATION_BATCH_SIZE is 0; .*least 1"),
        (["TEST.BEST_METRIC_MODE", "most"], "BEST_METRIC_MODE is 'most'.*'max', 'min'"),
        (["TEST.EARLY_STOPPING_PATIENCE", "3"], "PATIENCE is 3, but TEST.BEST_METRIC ''"),
        (["TEST.BEST_METRIC", "bbox/AP"], "'bbox/AP', but DATASETS.TEST is empty"),
        (
            ["TEST.BEST_METRIC", "bbox/AP", "TEST.EARLY_STOPPING_PATIENCE", "3",
             "DATASETS.TEST", "('a',)"],
            "PATIENCE is 3, but TEST.EVAL_PERIOD is 0",
        ),
    ],
)  # fmt: skip
def test_what_no_training_can_do_is_refused(opts, message):
    with pytest.raises(ValueError, match=message):
        check_training_options(config(*opts))


def test_the_defaults_pass():
    check_training_options(config())


@pytest.mark.parametrize(
    ("key", "value"),
    [("SOLVER.WEIGHT_PROJECTION_PERIOD", "100"), ("SOLVER.FILTER_ORTHO_COEFF", "1e-05")],
)
def test_what_is_asked_of_decoupled_filters_needs_them(key, value):
    cfg = config(key, value)
    check_filter_options(cfg, nn.Sequential(nn.Conv2d(3, 4, 3), DecoupledConv2d(4, 4, 3)))
    with pytest.raises(ValueError, match=f"{key} is {value} with MODEL.ISONET.CONV 'Conv2d'"):
        check_filter_options(cfg, nn.Sequential(nn.Conv2d(3, 4, 3)))
    check_filter_options(config(), nn.Sequential(nn.Conv2d(3, 4, 3)))


@pytest.mark.parametrize(
    "opts",
    [
        ("MODEL.PIXEL_STD", "[0.0, 1.0, 1.0]"),
        ("MODEL.PIXEL_MEAN", "[1.0, 2.0]"),
        ("INPUT.FORMAT", "L"),
        ("MODEL.PIXEL_MEAN", "[1e400, 2.0, 2.0]"),
        ("MODEL.PIXEL_MEAN", "['a', 2.0, 2.0]"),
        ("MODEL.PIXEL_MEAN", "[1.0, 2.0, 2.0, 3.0]"),
    ],
)
def test_pixels_that_cannot_be_normalized_are_refused(opts):
    check_pixels(config())
    check_pixels(config("INPUT.FORMAT", "L", "MODEL.PIXEL_MEAN", "[1.]", "MODEL.PIXEL_STD", "[1.]"))
    with pytest.raises(ValueError, match="PIXEL_MEAN is .* and MODEL.PIXEL_STD .*above 0"):
        check_pixels(config(*opts))


def test_an_evaluation_leaves_config_yaml_as_it_is_and_appends_to_the_log(tmp_path):
    (tmp_path / "config.yaml").write_text("of the training")
    cfg = load_config("", ["OUTPUT_DIR", str(tmp_path), "SEED", "1"])
    _set_up(cfg, Namespace(eval_only=True, config_file=""))
    assert (tmp_path / "config.yaml").read_text() == "of the training"
    assert "Command line arguments: Namespace" in (tmp_path / "log.txt").read_text()
    _set_up(cfg, Namespace(eval_only=False, config_file=""))
    assert "SEED: 1" in (tmp_path / "config.yaml").read_text()


def test_resume_by_the_config_of_a_run_asks_for_its_folder(tmp_path):
    (tmp_path / "model_final.pth").touch()
    args = Namespace(config_file=str(tmp_path / "config.yaml"), resume=True, eval_only=False)
    cfg = load_config("", ["OUTPUT_DIR", str(tmp_path / "other")])
    found = [str(x) for x in output_findings(cfg, args, nn.Linear(1, 1)) if x.severity == "error"]
    assert len(found) == 1 and found[0].endswith(f"add OUTPUT_DIR {tmp_path}")
    cfg.OUTPUT_DIR = str(tmp_path)
    assert not [x for x in output_findings(cfg, args, nn.Linear(1, 1)) if x.severity == "error"]
