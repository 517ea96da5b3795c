"""Small trainings of both tasks, dropout, mixup and sampled boxes among them, to be resumed."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from d2_isonet.config.loading import load_config
from d2_isonet.data.datasets import register_coco_files, register_data_root
from d2_isonet.engine.pretraining import ClassificationTrainer
from d2_isonet.engine.trainer import Trainer

STEPS = 6
COMMON = [
    "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", "0", "SEED", "7",
    "MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8",
    "SOLVER.MAX_EPOCHS", "0", "SOLVER.STEPS", "(4,)", "SOLVER.REFERENCE_WORLD_SIZE", "0",
    "SOLVER.WARMUP_ITERS", "3", "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.MAX_ITER", str(STEPS),
    "SOLVER.IMS_PER_BATCH", "2", "SOLVER.BASE_LR", "0.02", "DATASETS.TEST", "()",
]  # fmt: skip
DETECTION = [
    "INPUT.MIN_SIZE_TRAIN", "(48,60)", "MODEL.ROI_BOX_HEAD.FC_DIM", "16",
    "MODEL.ROI_MASK_HEAD.CONV_DIM", "8", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "32",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN", "100", "TEST.DETECTIONS_PER_IMAGE", "10",
]  # fmt: skip
CLASSIFICATION = [
    "INPUT.CLASSIFICATION.CROP_SIZE", "32", "INPUT.CLASSIFICATION.RESIZE", "36",
    "MODEL.CLASSIFIER.DROPOUT", "0.4", "INPUT.CLASSIFICATION.MIXUP_ALPHA", "0.7",
    "MODEL.CLASSIFIER.NUM_CLASSES", "2",
]  # fmt: skip


def write_data(root: Path) -> None:
    """A COCO json and image folder, and a tree of two classes: five images each, in `root`."""
    images, annotations = [], []
    for i in range(5):
        width, height = ((80, 60), (60, 80))[i % 2]
        pixels = np.random.RandomState(i).randint(0, 256, (height, width, 3), dtype=np.uint8)
        for folder in ("images", f"tree/train/{'ab'[i % 2]}", f"tree/val/{'ab'[i % 2]}"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{i}.jpg")
        images.append({"id": i, "file_name": f"{i}.jpg", "height": height, "width": width})
        corners = [8, 6, 48, 6, 48, 50, 8, 50]
        annotations.append(
            {"id": i + 1, "image_id": i, "category_id": 1, "iscrowd": 0, "bbox": [8, 6, 40, 44],
             "area": 1760, "segmentation": [corners]}
        )  # fmt: skip
    categories = [{"id": 1, "name": "thing"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "train.json").write_text(json.dumps(content))


def task(name: str, data: Path, output_dir: Path, workers: int = 0, *opts: str):
    """The Trainer's class and the config of one of the two tasks."""
    output_dir.mkdir(exist_ok=True)
    common = [*COMMON, "OUTPUT_DIR", str(output_dir), "DATALOADER.NUM_WORKERS", str(workers)]
    if name == "detection":
        register_coco_files("resume_train", str(data / "train.json"), str(data / "images"))
        opts = [*common, *DETECTION, "DATASETS.TRAIN", "('resume_train',)", *opts]
        opts += ["MODEL.ROI_HEADS.NUM_CLASSES", "1"]
        return Trainer, load_config("configs/risonet18_dc5.yaml", opts)
    train = register_data_root(str(data / "tree"))[0]
    opts = [*common, *CLASSIFICATION, "DATASETS.TRAIN", f"('{train}',)", *opts]
    return ClassificationTrainer, load_config("configs/imagenet/risonet18.yaml", opts)
