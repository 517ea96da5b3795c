"""Real COCO photographs: the loader reads them, and a detector that is right learns them."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.structures import Boxes

from d2_isonet.config.loading import load_config
from d2_isonet.data.datasets import register_coco_files
from d2_isonet.engine.trainer import Trainer
from d2_isonet.preflight.data.sets import check_datasets

OPTS = [
    "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", "0",
    "DATASETS.TRAIN", "('coco_samples',)", "DATASETS.TEST", "('coco_samples',)",
]  # fmt: skip


def test_the_official_layout_is_read_with_boxes_and_masks(samples):
    coco = samples / "coco"
    register_coco_files(
        "coco_samples", str(coco / "annotations/instances_val2017.json"), str(coco / "val2017")
    )
    cfg = load_config("configs/risonet50_c4.yaml", OPTS)
    check_datasets(cfg)
    dicts = DatasetCatalog.get("coco_samples")
    assert len(dicts) == 100
    mapped = DatasetMapper(cfg, is_train=True)(next(d for d in dicts if d["annotations"]))
    boxes, masks = mapped["instances"].gt_boxes, mapped["instances"].gt_masks
    assert mapped["image"].dtype == torch.uint8
    # a polygon's own box lies in the annotated box, within the rounding of the resize
    inner, outer = masks.get_bounding_boxes().tensor, boxes.tensor
    assert (inner[:, :2] >= outer[:, :2] - 2).all()
    assert (inner[:, 2:] <= outer[:, 2:] + 2).all()
    assert isinstance(boxes, Boxes) and len(boxes) == len(masks) > 0


def eight_images(samples: Path, folder: Path) -> Path:
    """A json of the eight training photographs whose smallest object is the largest."""
    content = json.loads((samples / "coco/annotations/instances_train2017.json").read_text())
    objects: dict[int, list] = {}
    for annotation in content["annotations"]:
        objects.setdefault(annotation["image_id"], []).append(annotation)
    clean = {i: a for i, a in objects.items() if not any(x["iscrowd"] for x in a) and len(a) > 1}
    chosen = sorted(clean, key=lambda i: -min(x["area"] for x in clean[i]))[:8]
    content["images"] = [x for x in content["images"] if x["id"] in chosen]
    content["annotations"] = [x for i in chosen for x in objects[i]]
    file = folder / "eight.json"
    file.write_text(json.dumps(content))
    return file


OVERFIT = [
    "INPUT.MIN_SIZE_TRAIN", "(192,)", "INPUT.MIN_SIZE_TEST", "192", "INPUT.MAX_SIZE_TRAIN", "288",
    "INPUT.MAX_SIZE_TEST", "288", "INPUT.RANDOM_FLIP", "none", "DATALOADER.NUM_WORKERS", "1",
    "MODEL.ANCHOR_GENERATOR.SIZES", "[[32, 64, 128, 256]]", "MODEL.ROI_BOX_HEAD.FC_DIM", "256",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "64", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "300",
    "MODEL.ROI_MASK_HEAD.CONV_DIM", "128", "MODEL.RPN.PRE_NMS_TOPK_TRAIN", "1000",
    "MODEL.RPN.PRE_NMS_TOPK_TEST", "500", "MODEL.RPN.POST_NMS_TOPK_TEST", "100",
    "SOLVER.IMS_PER_BATCH", "4", "SOLVER.REFERENCE_WORLD_SIZE", "0", "SOLVER.BASE_LR", "0.02",
    "SOLVER.WARMUP_ITERS", "100", "SOLVER.MAX_ITER", "240", "SOLVER.STEPS", "(200,)",
    "SOLVER.RESIDUAL_SCALE_LR_FACTOR", "1.0",
    "SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "5.0",
]  # fmt: skip


@pytest.mark.slow
def test_a_detector_from_delta_initialization_learns_eight_photographs_by_heart(samples, tmp_path):
    json_file = eight_images(samples, tmp_path)
    register_coco_files("coco_samples", str(json_file), str(samples / "coco/train2017"))
    opts = [*OPTS, *OVERFIT, "OUTPUT_DIR", str(tmp_path)]
    trainer = Trainer(load_config("configs/risonet18_dc5.yaml", opts))
    trainer.resume_or_load(resume=False)
    trainer.train()
    results = trainer._last_eval_results
    assert results["bbox"]["AP50"] > 80
    assert results["segm"]["AP50"] > 70
