"""Every yaml: it loads, it builds, and it carries the paper's numbers."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from d2_isonet.command_line import load_config
from d2_isonet.resnet import NUM_BLOCKS

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
LEAVES = sorted(p for p in CONFIGS.rglob("*.yaml") if not p.name.startswith("Base"))
DETECTION = [p for p in LEAVES if p.parent == CONFIGS]
IMAGENET = [p for p in LEAVES if p.parent.name == "imagenet"]


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda p: p.stem)


def depth_of(path: Path) -> int:
    return int(re.search(r"isonet(\d+)", path.stem)[1])


@named(LEAVES)
def test_it_builds(path):
    cfg = load_config(str(path), ["MODEL.DEVICE", "meta"])
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        cfg.MODEL.CLASSIFIER.NUM_CLASSES = 1000
    with torch.device("meta"):
        model = build_model(cfg)
    blocks = [m for m in model.modules() if type(m).__name__.startswith("ISONetB")]
    assert len(blocks) == sum(NUM_BLOCKS[depth_of(path)])


@named(LEAVES)
def test_a_leaf_is_short(path):
    assert len(path.read_text().splitlines()) <= 10


def test_the_promised_files_are_there():
    promised = {f"risonet{d}_{h}" for d in (18, 34, 50, 101) for h in ("c4", "dc5", "fpn")}
    promised |= {f"faster_risonet50_{h}" for h in ("c4", "dc5", "fpn")}
    assert promised <= {p.stem for p in DETECTION}
    assert {f"{n}{d}" for n in ("isonet", "risonet") for d in (18, 34, 50, 101)} <= {
        p.stem for p in IMAGENET
    }


@named(DETECTION)
def test_detection_follows_section_3_4(path):
    cfg = load_config(str(path), [])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER) == (0.01, 16, 90000)
    assert tuple(cfg.SOLVER.STEPS) == (60000, 80000)
    assert cfg.SOLVER.GAMMA == 0.1
    assert cfg.SOLVER.REFERENCE_WORLD_SIZE == 8
    assert cfg.SOLVER.ORTHO_COEFF == 1e-4
    assert cfg.MODEL.MASK_ON != path.stem.startswith("faster")
    assert cfg.DATASETS.TRAIN == ("coco_2017_train",)
    assert cfg.MODEL.WEIGHTS == f"output/imagenet/risonet{depth_of(path)}/backbone.pth"


@named(IMAGENET)
def test_pretraining_follows_section_3_1(path):
    cfg = load_config(str(path), [])
    plain = path.stem.startswith("isonet")
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH) == (0.02 if plain else 0.1, 256)
    assert (cfg.SOLVER.MAX_EPOCHS, tuple(cfg.SOLVER.EPOCH_STEPS)) == (100, (30, 60, 90))
    assert (cfg.SOLVER.WARMUP_EPOCHS, cfg.SOLVER.WARMUP_METHOD) == (5, "linear")
    assert (cfg.SOLVER.MOMENTUM, cfg.SOLVER.WEIGHT_DECAY) == (0.9, 1e-4)
    assert cfg.SOLVER.ORTHO_COEFF == (3e-4 if path.stem == "isonet101" else 1e-4)
    assert cfg.MODEL.CLASSIFIER.DROPOUT == (0.1 if plain else 0.4)
    assert cfg.MODEL.ISONET.SHORTCUT is not plain
    assert cfg.MODEL.ISONET.RESIDUAL_SCALE == (None if plain else 0.0)


@named(LEAVES)
def test_both_tasks_see_the_same_pixels(path):
    cfg = load_config(str(path), [])
    assert cfg.INPUT.FORMAT == "RGB"
    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53]
    assert cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]
