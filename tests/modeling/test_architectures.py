"""detectron2's other architectures and projects build, train and evaluate on R-ISONet."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_panoptic_separated
from detectron2.modeling import build_backbone
from PIL import Image

import d2_isonet
from d2_isonet.data.datasets import register_coco_files
from d2_isonet.engine.trainer import Trainer
from d2_isonet.evaluation import build as evaluators
from d2_isonet.modeling.stages import STAGES, stage_of
from d2_isonet.preflight.data.sets import dataset_findings
from d2_isonet.preflight.run import run_findings

NARROW = [
    "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", "0",
    "MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "16",
    "MODEL.RESNETS.WIDTH_PER_GROUP", "4", "MODEL.FPN.OUT_CHANNELS", "8",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "16", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "20",
    "MODEL.RPN.POST_NMS_TOPK_TEST", "20", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8",
    "MODEL.ROI_HEADS.NUM_CLASSES", "3", "MODEL.RETINANET.NUM_CLASSES", "3",
    "MODEL.ROI_BOX_HEAD.FC_DIM", "16", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "8",
    "MODEL.SEM_SEG_HEAD.NORM", "", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0",
    "MODEL.RETINANET.SCORE_THRESH_TEST", "0.0",
    "INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", "48", "DATALOADER.NUM_WORKERS", "0",
    "SOLVER.REFERENCE_WORLD_SIZE", "0", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2",
    "SOLVER.STEPS", "()", "SOLVER.BASE_LR", "0.001", "SEED", "3",
]  # fmt: skip


def boxes(name: str) -> CfgNode:
    return d2_isonet.get_config(name, NARROW)


def point_rend() -> CfgNode:
    """Mask R-CNN's masks, refined point by point (Kirillov et al. 2020)."""
    from detectron2.projects.point_rend import add_pointrend_config

    cfg = boxes("risonet50_fpn")
    add_pointrend_config(cfg)
    head = cfg.MODEL.ROI_MASK_HEAD
    head.NAME, head.FC_DIM, head.NUM_FC = "PointRendMaskHead", 16, 2
    head.POOLER_TYPE, head.IN_FEATURES, head.OUTPUT_SIDE_RESOLUTION = "", ["p2"], 7
    head.POINT_HEAD_ON, cfg.INPUT.MASK_FORMAT = True, "bitmask"
    cfg.MODEL.POINT_HEAD.FC_DIM, cfg.MODEL.POINT_HEAD.NUM_CLASSES = 8, 3
    cfg.MODEL.POINT_HEAD.IN_FEATURES = ["p2"]
    return cfg


def deeplab() -> CfgNode:
    """DeepLab v3+ on a dilated res5, as semantic segmentation alone."""
    from detectron2.projects.deeplab import add_deeplab_config

    cfg = boxes("risonet50_dc5")
    add_deeplab_config(cfg)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.MASK_ON = "SemanticSegmentor", False
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res5"]
    head = cfg.MODEL.SEM_SEG_HEAD
    head.NAME, head.IN_FEATURES, head.COMMON_STRIDE = "DeepLabV3PlusHead", ["res2", "res5"], 4
    head.ASPP_CHANNELS, head.PROJECT_CHANNELS, head.LOSS_TYPE = 8, [4], "cross_entropy"
    return cfg


# name: the config, the registered set, and the measures of its evaluation
ARCHITECTURES = {
    "RetinaNet": (lambda: boxes("retinanet_risonet50_fpn"), "instances", {"bbox"}),
    "Cascade R-CNN": (lambda: boxes("cascade_risonet50_fpn"), "instances", {"bbox", "segm"}),
    "Panoptic FPN": (
        lambda: boxes("panoptic_risonet50_fpn"), "panoptic", {"bbox", "segm", "sem_seg"},
    ),
    "PointRend": (point_rend, "instances", {"bbox", "segm"}),
    "DeepLab v3+": (deeplab, "semantic", {"sem_seg"}),
}  # fmt: skip


@pytest.fixture
def sets(coco_files, tmp_path):
    """The four images of coco_files as three data sets, by name."""
    json_file, images = coco_files
    (tmp_path / "stuff").mkdir()
    for i in range(4):
        labels = np.full((60, 80), i % 2, np.uint8)
        labels[:, 40:] = 1 - i % 2
        Image.fromarray(labels).save(tmp_path / "stuff" / f"{i}.png")
    register_coco_files("instances", str(json_file), str(images))
    register_coco_panoptic_separated(
        "panoptic", {}, str(images), "", "", str(tmp_path / "stuff"), str(json_file)
    )
    both = "panoptic_separated"
    DatasetCatalog.register("semantic", lambda: DatasetCatalog.get(both))
    MetadataCatalog.get(both).set(
        stuff_classes=["land", "sky"], stuff_dataset_id_to_contiguous_id={0: 0, 1: 1}
    )
    MetadataCatalog.get("semantic").set(
        stuff_classes=["land", "sky"], evaluator_type="sem_seg", ignore_label=255
    )
    yield {"instances": "instances", "panoptic": both, "semantic": "semantic"}
    for name in ("instances", both, "panoptic_stuffonly", "semantic"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_built_trained_and_evaluated(architecture, sets, tmp_path):
    build, data, measures = ARCHITECTURES[architecture]
    cfg = build()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (sets[data],)
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    (tmp_path / "run").mkdir()
    args = Namespace(eval_only=False, resume=False, trust_pickle=False)
    _, findings = run_findings(cfg, args)  # what train_net.py checks
    findings += [] if data == "semantic" else dataset_findings(cfg)
    assert not [str(finding) for finding in findings if finding.severity == "error"]
    trainer = Trainer(cfg)
    for parameter in trainer.model.backbone.parameters():  # no longer orthogonal, no scale 0
        parameter.data += 0.02 * torch.randn_like(parameter)
    first = {name: x.clone() for name, x in trainer.model.backbone.state_dict().items()}
    trainer.train()
    assert set(trainer._last_eval_results) == measures
    lines = (tmp_path / "run" / "metrics.json").read_text().splitlines()
    losses = {k: x for line in lines for k, x in json.loads(line).items() if "loss" in k}
    assert np.isfinite(list(losses.values())).all() and losses["loss_ortho"] > 0
    now = trainer.model.backbone.state_dict()
    moved = {stage_of(name) for name, x in now.items() if not torch.equal(x, first[name])}
    assert set(STAGES) <= moved


def test_panoptic_quality_is_computed_where_its_package_is(sets, tmp_path, monkeypatch, caplog):
    def measures() -> list[str]:
        evaluator = evaluators.build_evaluator(sets["panoptic"], str(tmp_path / "results"))
        return [type(getattr(x, "evaluator", x)).__name__ for x in evaluator._evaluators]

    monkeypatch.setattr(evaluators.importlib.util, "find_spec", lambda _: None)
    assert measures() == ["SemSegEvaluator", "FastCOCOEvaluator"]
    assert (
        "'panoptic_separated': PQ is left out, which needs the package panopticapi" in caplog.text
    )
    monkeypatch.setattr(evaluators.importlib.util, "find_spec", lambda _: "there")
    assert measures()[2:] == ["COCOPanopticEvaluator"]


def test_a_retinanet_needs_res5():
    cfg = boxes("retinanet_risonet50_fpn")
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4"]
    with pytest.raises(ValueError, match=r"OUT_FEATURES is \['res3', 'res4'\]; it must have res5"):
        build_backbone(cfg)
