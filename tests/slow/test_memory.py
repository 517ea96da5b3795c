"""Resident memory does not rise: 2,000 steps and 1,000 evaluated images of both tasks.

python -m pytest tests/slow/test_memory.py -m slow -s       prints the slopes
"""

import multiprocessing
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
STEPS = 2000
EVALUATIONS = 250
# Bytes: the iterations of the schedule, the console's and metrics.json's history windows and the
# allocator's fragments leave some; a kept batch of 2 images of 32 x 32 would be 6,000, a kept
# graph of the smallest network here over 100,000.
BYTES_PER_STEP = 2000
BYTES_PER_IMAGE = 4000


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def slope(samples: list[tuple[int, int]]) -> float:
    """Bytes per step of the least-squares line through (step, bytes)."""
    import numpy as np

    steps, sizes = np.array(samples, dtype=float).T
    return float(np.polyfit(steps, sizes, 1)[0])


def sampled(task: str, root: Path) -> tuple[list, list]:
    """(step, bytes) after the first fifth of a training; (image, bytes) of its evaluations."""
    import torch
    from detectron2.engine import HookBase
    from detectron2.evaluation import inference_on_dataset

    torch.set_num_threads(1)
    cfg, trainer_class = classifier(root) if task == "classifier" else detector(root)
    training, evaluation = [], []

    class Sampler(HookBase):
        def after_step(self):
            if self.trainer.iter >= STEPS // 5 and self.trainer.iter % 10 == 0:
                training.append((self.trainer.iter, resident_bytes()))

    trainer = trainer_class(cfg)
    trainer.register_hooks([Sampler()])
    trainer.train()
    loader = trainer_class.build_test_loader(cfg, cfg.DATASETS.TEST[0])
    evaluator = trainer_class.build_evaluator(cfg, cfg.DATASETS.TEST[0])
    for i in range(EVALUATIONS):
        inference_on_dataset(trainer.model, loader, evaluator)
        if i >= EVALUATIONS // 5:
            evaluation.append((4 * i, resident_bytes()))
    return training, evaluation


def tiny(config_file: str, root: Path, *opts: str):
    from d2_isonet.config.loading import fall_back_to_cpu, load_config

    cfg = load_config(
        config_file,
        ["MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8",
         "SOLVER.MAX_EPOCHS", "0", "SOLVER.MAX_ITER", str(STEPS), "SOLVER.STEPS", "()",
         "SOLVER.IMS_PER_BATCH", "2", "SOLVER.REFERENCE_WORLD_SIZE", "0", "SOLVER.BASE_LR", "1e-4",
         "SOLVER.CHECKPOINT_PERIOD", "500", "SOLVER.CHECKPOINT_MAX_TO_KEEP", "2",
         "DATALOADER.NUM_WORKERS", "0", "MODEL.WEIGHTS", "", "OUTPUT_DIR", str(root / "out"),
         *opts],
    )  # fmt: skip
    fall_back_to_cpu(cfg)
    (root / "out").mkdir(exist_ok=True)
    return cfg


def classifier(root: Path):
    from d2_isonet.data.datasets import register_data_root
    from d2_isonet.engine.pretraining import ClassificationTrainer

    train, val = register_data_root(str(root))
    return tiny(
        "configs/imagenet/risonet18.yaml", root,
        "DATASETS.TRAIN", f"('{train}',)", "DATASETS.TEST", f"('{val}',)",
        "MODEL.CLASSIFIER.NUM_CLASSES", "2", "TEST.CLASSIFICATION_BATCH_SIZE", "1",
        "INPUT.CLASSIFICATION.CROP_SIZE", "32", "INPUT.CLASSIFICATION.RESIZE", "36",
    ), ClassificationTrainer  # fmt: skip


def detector(root: Path):
    from argparse import Namespace

    from d2_isonet.data.datasets import use_own_data
    from d2_isonet.engine.trainer import Trainer

    cfg = tiny(
        "configs/risonet18_dc5.yaml", root, "SOLVER.IMS_PER_BATCH", "1",
        "INPUT.MIN_SIZE_TRAIN", "(60,)", "INPUT.MIN_SIZE_TEST", "60",
        "MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.ROI_BOX_HEAD.FC_DIM", "16",
        "MODEL.ROI_MASK_HEAD.CONV_DIM", "8", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16",
        "MODEL.RPN.POST_NMS_TOPK_TRAIN", "50", "MODEL.RPN.POST_NMS_TOPK_TEST", "50",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "TEST.DETECTIONS_PER_IMAGE", "10",
    )  # fmt: skip
    own = {f"{split}_json": str(root / "instances.json") for split in ("train", "val")}
    own |= {f"{split}_images": str(root / "images") for split in ("train", "val")}
    use_own_data(cfg, Namespace(**own))
    return cfg, Trainer


@pytest.fixture
def folder(request, tmp_path, coco_files) -> Path:
    """Images with boxes and masks, and the same images as two classes."""
    for split in ("train", "val"):
        for i, name in enumerate(("a", "b")):
            (tmp_path / split / name).mkdir(parents=True)
            for file in sorted((tmp_path / "images").iterdir())[2 * i : 2 * i + 2]:
                (tmp_path / split / name / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("task", ["classifier", "detector"])
def test_resident_memory_does_not_rise(task, folder):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        training, evaluation = pool.apply(sampled, (task, folder))
    per_step, per_image = slope(training), slope(evaluation)
    print(f"\n{task}: {per_step:.0f} bytes per step, {per_image:.0f} bytes per evaluated image, "
          f"{training[-1][1] / 1e6:.0f} MB at the end")  # fmt: skip
    assert per_step < BYTES_PER_STEP
    assert per_image < BYTES_PER_IMAGE
