"""The pretraining script as a user starts it, small, for tests of whole processes."""

import os
import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from repository import HELPERS, REPOSITORY, TOOLS

SCRIPT = str(REPOSITORY / "tools" / "pretrain_imagenet.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
ENVIRONMENT["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(REPOSITORY), str(TOOLS), str(HELPERS), os.environ.get("PYTHONPATH", "")])
)
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def write_image_tree(root: Path) -> Path:
    """Two classes, red and blue, four images of training and two of validation each."""
    for split, count in (("train", 4), ("val", 2)):
        for channel, name in ((0, "red"), (2, "blue")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.random.RandomState(i).randint(0, 60, (40, 48, 3), dtype=np.uint8)
                pixels[..., channel] += 180
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def arguments(root: Path, output_dir: Path, steps: int, *before: str) -> list[str]:
    """Of the script: `before` are the flags beside those that name config and data."""
    return [
        "--config-file", str(REPOSITORY / "configs" / "imagenet" / "risonet18.yaml"),
        "--data-root", str(root), *before, "OUTPUT_DIR", str(output_dir),
        "MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8",
        "SOLVER.MAX_EPOCHS", "0", "SOLVER.MAX_ITER", str(steps), "SOLVER.STEPS", "()",
        "SOLVER.CHECKPOINT_PERIOD", "20", "SOLVER.IMS_PER_BATCH", "8", "SOLVER.BASE_LR", "0.02",
        "SOLVER.REFERENCE_WORLD_SIZE", "0", "MODEL.CLASSIFIER.DROPOUT", "0.0",
        "INPUT.CLASSIFICATION.CROP_SIZE", "32", "INPUT.CLASSIFICATION.RESIZE", "36",
        "DATALOADER.NUM_WORKERS", "0", "SEED", "1", "TEST.EVAL_PERIOD", "0",
    ]  # fmt: skip


def starts(log: str) -> list[int]:
    """The iterations at which detectron2 said that it starts training."""
    return [int(x) for x in re.findall(r"Starting training from iteration (\d+)", log)]
