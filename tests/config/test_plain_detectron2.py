"""Every yaml as a detectron2 project reads it: get_cfg, add_isonet_config, merge_from_file."""

import logging

import pytest
from config_files import CONFIGS, LEAVES, named
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from repository import REPOSITORY

from d2_isonet import add_isonet_config
from d2_isonet.config.loading import load_config

SAVED = sorted((REPOSITORY / "tests/data").rglob("config.yaml"))
FILES = [*sorted(CONFIGS.rglob("*.yaml")), *SAVED]
ONE_OF_EACH_KIND = [
    "risonet18_c4", "decoupled18_c4", "modified18_c4", "risonet18_fpn", "risonet18_dc5",
    "fixup50_dc5", "isonet50_dc5", "resnet34_dc5", "resnet50_dc5_gn",
    "faster_risonet50_c4", "retinanet_risonet50_fpn", "cascade_risonet50_fpn",
    "panoptic_risonet50_fpn", "imagenet/risonet18", "imagenet/modified18_tanh",
    "imagenet/decoupled18_tanh_no_bn", "cifar/fixup20", "cifar/cnn9_tanh", "cifar/vanilla_bn20",
    "quickstart/small_risonet18", "quickstart/small_risonet18_dc5",
]  # fmt: skip


def _plain(path):
    cfg = get_cfg()
    add_isonet_config(cfg)
    cfg.merge_from_file(str(path))
    return cfg


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_plain_detectron2_merges_every_yaml(path, caplog):
    with caplog.at_level(logging.WARNING):
        _plain(path)
    assert not caplog.records  # such as a guessed VERSION


@named(LEAVES)
def test_plain_detectron2_reads_what_we_read(path):
    assert _plain(path) == load_config(str(path), [])


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_plain_detectron2_builds_the_network(name):
    cfg = _plain(CONFIGS / f"{name}.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.CLASSIFIER.NUM_CLASSES = 10  # 0 in the defaults: the dataset says it
    model = build_model(cfg)
    assert type(model).__name__ == cfg.MODEL.META_ARCHITECTURE
    assert sum(parameter.numel() for parameter in model.backbone.parameters()) > 0
