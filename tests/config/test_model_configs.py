"""Configs by name: each one loads, and an unknown name gets the nearest one."""

from pathlib import Path

import pytest
import torch
from config_files import CONFIGS, LEAVES, named

import d2_isonet
from d2_isonet.config import model_zoo as model_configs
from d2_isonet.config.loading import load_config


def test_every_leaf_has_a_name():
    expected = {str(path.relative_to(CONFIGS))[:-5] for path in LEAVES}
    assert set(model_configs.config_names()) == expected


@named(LEAVES)
def test_a_name_is_the_path_of_its_file(path):
    assert Path(d2_isonet.get_config_file(str(path.relative_to(CONFIGS))[:-5])) == path


def test_the_suffix_may_stay_and_a_base_can_be_inherited():
    c4 = d2_isonet.get_config_file("risonet50_c4")
    assert d2_isonet.get_config_file("risonet50_c4.yaml") == c4
    assert d2_isonet.get_config_file("Base-C4") == str(CONFIGS / "Base-C4.yaml")


def test_a_config_is_what_the_command_line_would_load(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    expected = load_config("configs/risonet50_c4.yaml", ["SOLVER.BASE_LR", "0.5"])
    assert d2_isonet.get_config("risonet50_c4", ["SOLVER.BASE_LR", "0.5"]) == expected
    assert expected.MODEL.RESNETS.DEPTH == 50


def test_without_a_gpu_it_is_for_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = d2_isonet.get_config("risonet18_fpn")
    assert cfg.MODEL.DEVICE == "cpu"
    cfg.MODEL.WEIGHTS = ""  # not frozen: it is the user's


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("risonet50_c5", "'risonet50_c5'; did you mean .*risonet50_c4"),
        ("risonet50", "did you mean imagenet/risonet50"),
        ("../risonet50_c4", "there is no config '../risonet50_c4'"),
        ("", "there is no config ''"),
        (
            "zzz",
            r"there is no config 'zzz'; config_names\(\) of d2_isonet.config.model_zoo lists them",
        ),
    ],
)
def test_a_name_that_is_none_has_a_neighbour(name, message):
    with pytest.raises(ValueError, match=message):
        d2_isonet.get_config(name)


def test_a_package_without_its_configs_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(model_configs, "_PACKAGE", tmp_path / "site-packages" / "d2_isonet")
    with pytest.raises(FileNotFoundError, match="site-packages: install the package again"):
        d2_isonet.get_config_file("risonet50_c4")
