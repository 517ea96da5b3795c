"""Every yaml: it loads, it builds as its name says, and a detector fits its pretraining."""

import re
from pathlib import Path

import torch
from config_files import (
    CIFAR,
    CONFIGS,
    DEPTHS,
    DETECTION,
    IMAGENET,
    LEAVES,
    NETWORKS,
    backbone_shapes,
    config,
    model,
    name_and_depth,
    named,
)
from detectron2.solver import build_lr_scheduler

from d2_isonet.checkpoint.checkpointer import describe
from d2_isonet.checkpoint.matching import meta_differences
from d2_isonet.preflight.network import keys_without_effect


@named(NETWORKS)
def test_it_builds_as_deep_as_its_name_says(path):
    backbone = {k: v for k, v in backbone_shapes(path).items() if "shortcut" not in k}
    kernels = [name for name, shape in backbone.items() if len(shape) == 4]
    _, depth = name_and_depth(path)
    # names count the linear layer, but not CNN-9's, nor that of the modified ResNet-18
    expected = {"modified": 18, "cnn": 9}.get(re.split("[_0-9]", path.stem)[0], depth - 1)
    assert len(kernels) == expected


WIDTHS = {"modified": 1024, "decoupled": 384, "cnn": 256}  # of the last stage, in the paper


@named([*CIFAR, *(p for p in IMAGENET if p.stem.startswith("modified"))])
def test_its_last_stage_has_the_width_of_the_paper(path):
    expected = WIDTHS.get(re.split("[_0-9]", path.stem)[0], 64)
    assert [s.channels for s in model(path).backbone.output_shape().values()] == [expected]


@named(LEAVES)
def test_a_leaf_is_short(path):
    assert len(path.read_text().splitlines()) <= 10


@named([p for p in LEAVES if p.parent.name != "quickstart"])
def test_the_output_folder_repeats_the_name(path):
    assert config(path).OUTPUT_DIR == f"output/{path.relative_to(CONFIGS).with_suffix('')}"


@named(NETWORKS)
def test_its_schedule_can_be_built(path):
    cfg = config(path).clone()
    cfg.defrost()
    assert cfg.SOLVER.MAX_EPOCHS or max(cfg.SOLVER.STEPS) < cfg.SOLVER.MAX_ITER
    optimizer = torch.optim.SGD([torch.zeros(1)], cfg.SOLVER.BASE_LR)
    build_lr_scheduler(cfg, optimizer)
    assert 0 < optimizer.param_groups[0]["lr"] <= cfg.SOLVER.BASE_LR


@named([*DETECTION, *IMAGENET, *CIFAR])
def test_only_decoupled_networks_have_decoupled_options(path):
    solver, decoupled = config(path).SOLVER, config(path).MODEL.ISONET.CONV == "Decoupled"
    family = path.stem.startswith(("decoupled", "modified", "cnn9")) and "baseline" not in path.stem
    assert decoupled == family
    expected = (100, 1e-5) if decoupled else (0, 0.0)
    assert (solver.WEIGHT_PROJECTION_PERIOD, solver.FILTER_ORTHO_COEFF) == expected


# -------------------------------------------------------------------- detection, hand-over


@named(DETECTION)
def test_its_weights_are_those_of_a_pretraining_that_fits(path):
    weights = Path(config(path).MODEL.WEIGHTS)
    pretraining = CONFIGS / "imagenet" / f"{weights.parent.name}.yaml"
    assert weights == Path(config(pretraining).OUTPUT_DIR) / "backbone.pth"
    assert not meta_differences(describe(config(pretraining)), describe(config(path)))
    assert backbone_shapes(path) == backbone_shapes(pretraining)


@named([p for p in NETWORKS if "risonet" in p.stem and p not in CIFAR])
def test_r_isonet_sees_the_pixels_of_the_authors(path):
    cfg = config(path)
    assert cfg.INPUT.FORMAT == "RGB"
    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53]
    assert cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]


@named(DETECTION)
def test_detection_follows_section_3_4(path):
    cfg = config(path)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER) == (0.01, 16, 90000)
    assert tuple(cfg.SOLVER.STEPS) == (60000, 80000)
    assert cfg.SOLVER.GAMMA == 0.1
    assert cfg.SOLVER.REFERENCE_WORLD_SIZE == 8
    assert cfg.SOLVER.ORTHO_COEFF == (1e-4 if "isonet" in path.stem else 0)
    assert cfg.MODEL.MASK_ON != path.stem.startswith(("faster", "retinanet"))
    panoptic = "_panoptic_separated" if path.stem.startswith("panoptic") else ""
    assert cfg.DATASETS.TRAIN == (f"coco_2017_train{panoptic}",)


# file: norm of the backbone, norm of the FPN
NORMS = {
    **{f"resnet{n}": ("FrozenBN", "") for n in ("34_dc5", "50_c4", "50_dc5", "50_fpn")},
    "resnet50_dc5_gn": ("GN", ""),
    "resnet50_fpn_gn": ("GN", "GN"),
    "resnet50_dc5_syncbn": ("SyncBN", ""),
    "resnet50_fpn_syncbn": ("SyncBN", "SyncBN"),
}


@named(DETECTION)
def test_a_detector_has_the_norm_of_its_name(path):
    resnets, fpn = config(path).MODEL.RESNETS, config(path).MODEL.FPN
    assert (resnets.NORM, fpn.NORM) == NORMS.get(path.stem, ("", ""))


@named([p for p in DETECTION if p.stem.startswith(("decoupled", "modified"))])
def test_a_decoupled_detector_takes_no_statistic_of_the_batch(path):
    decoupled = config(path).MODEL.DECOUPLED
    assert (decoupled.MAGNITUDE, decoupled.RADIUS_SCALE) == ("Tanh", "frozen")
    assert not any("Norm" in type(module).__name__ for module in model(path).backbone.modules())


@named(NETWORKS)
def test_no_key_of_a_yaml_changes_nothing(path):
    assert keys_without_effect(config(path)) == []


def test_every_detector_is_there():
    promised = {f"risonet{d}_{h}" for d in DEPTHS for h in ("c4", "dc5", "fpn")}
    promised |= {f"{n}_{h}" for h in ("c4", "dc5", "fpn") for n in ("decoupled18", "modified18")}
    promised |= {f"faster_risonet50_{h}" for h in ("c4", "dc5", "fpn")}
    promised |= {f"{a}_risonet50_fpn" for a in ("retinanet", "cascade", "panoptic")}
    assert promised | set(NORMS) | {"fixup50_dc5", "isonet50_dc5"} == {p.stem for p in DETECTION}
