"""The same batches trained on by one process and by several, each with its share of the images."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from benchmarks.detectors import training_batch
from detectron2.structures import Boxes
from detectron2.utils import comm
from torch.nn import functional as F

from d2_isonet.config.loading import load_config
from d2_isonet.distributed.launch import launch
from d2_isonet.engine.trainer import Trainer

IMAGES, STEPS = 8, 8
_binary_cross_entropy = F.binary_cross_entropy_with_logits
_SMALL = [
    "MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.FREEZE_AT", "0",
    "MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8",
    "SOLVER.MAX_ITER", str(STEPS), "SOLVER.MAX_EPOCHS", "0", "SOLVER.STEPS", "()",
    "SOLVER.IMS_PER_BATCH", str(IMAGES), "SOLVER.REFERENCE_WORLD_SIZE", "0",
    "SOLVER.BASE_LR", "0.02", "SOLVER.WARMUP_ITERS", "0", "DATASETS.TEST", "()",
    "SOLVER.ORTHO_COEFF", "0.001",
]  # fmt: skip
# Dropout draws from each process's own generator: equal in distribution alone.
_CLASSIFIER = ["MODEL.CLASSIFIER.NUM_CLASSES", "5", "MODEL.CLASSIFIER.DROPOUT", "0.0"]
_R_ISONET = ["MODEL.ISONET.RESIDUAL_SCALE", "0.5"]  # 0 would leave the branches out of step one
_BN = ["MODEL.RESNETS.NORM", "BN"]
_DETECTOR = [
    "MODEL.ROI_BOX_HEAD.FC_DIM", "16", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8",
    "MODEL.ROI_HEADS.NUM_CLASSES", "80", "MODEL.ANCHOR_GENERATOR.SIZES", "[[16,32,64]]",
]  # fmt: skip
# Every image gives 2 boxes of objects and 6 of background to the heads, whose losses are means
# over the boxes of a process.
_FILLED = ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8"]
_CASES = {
    "classifier": ("imagenet/risonet18", [*_CLASSIFIER, *_R_ISONET]),
    "classifier BN": ("imagenet/resnet18", [*_CLASSIFIER, *_BN]),
    "detector": ("risonet18_dc5", [*_DETECTOR, *_R_ISONET, *_FILLED]),
    "detector BN": ("resnet34_dc5", ["MODEL.RESNETS.DEPTH", "18", *_DETECTOR, *_BN, *_FILLED]),
    "detector, unequal numbers of boxes": ("risonet18_dc5", [*_DETECTOR, *_R_ISONET]),
}
CASES = {
    f"{name}, {str(dtype)[6:]}": (file, opts, dtype)
    for name, (file, opts) in _CASES.items()
    for dtype in (torch.float32, torch.float64)
}


class SharedBatchTrainer(Trainer):
    """The optimizer's and the regularizer's steps on batches whose share is this process's."""

    dtype = torch.float32

    @classmethod
    def build_model(cls, cfg):
        torch.manual_seed(0)
        return super().build_model(cfg).to(cls.dtype)

    @classmethod
    def build_train_loader(cls, cfg):
        size, rank = comm.get_world_size(), comm.get_rank()
        share = slice(rank * IMAGES // size, (rank + 1) * IMAGES // size)
        make = _classified if "Classifier" in cfg.MODEL.META_ARCHITECTURE else _detected
        return [make(step)[share] for step in range(STEPS)]

    def build_writers(self):
        return []


def _classified(step: int) -> list[dict]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return [{"image": image, "label": i % 5} for i, image in enumerate(images)]


def _detected(step: int) -> list[dict]:
    """Images of one size: padding to the largest of a batch would be another input."""
    batch = [training_batch([64, 96], 1, num_objects=2 + i % 3)[0] for i in range(IMAGES)]
    generator = torch.Generator().manual_seed(step)
    for x in batch:
        x["image"] = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=generator)
    return batch


def _in_order(n: int, device=None, **_) -> torch.Tensor:
    return torch.arange(n, device=device)


@contextlib.contextmanager
def _all_in_float64() -> Iterator[None]:
    """Detectron2 makes boxes, and targets of two losses, float32 whatever the model is.

    The processes then differ by 1e-7, not by 1e-10: float32 is rounded by position in the batch.
    """

    def init(self, tensor):
        self.tensor = torch.as_tensor(tensor, dtype=torch.float64).reshape(-1, 4)

    def binary_cross_entropy(scores, target, **options):
        return _binary_cross_entropy(scores, target.to(scores.dtype), **options)

    with (
        mock.patch.object(Boxes, "__init__", init),
        mock.patch.object(F, "binary_cross_entropy_with_logits", binary_cross_entropy),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield


def losses(case: str, folder: Path) -> dict[str, list[float]]:
    """Of every step, by name, the mean over the processes; the penalty among them."""
    file, opts, SharedBatchTrainer.dtype = CASES[case]
    cfg = load_config(f"configs/{file}.yaml", [*_SMALL, *opts, "OUTPUT_DIR", str(folder)])
    trainer = SharedBatchTrainer(cfg)
    in_float64 = SharedBatchTrainer.dtype == torch.float64
    # detectron2 draws anchors and boxes at random, each process for itself
    with (
        mock.patch.object(torch, "randperm", _in_order),
        _all_in_float64() if in_float64 else contextlib.nullcontext(),
    ):
        trainer.train()
    names = [name for name in trainer.storage.histories() if "loss" in name]
    return {name: [x for x, _ in trainer.storage.history(name).values()] for name in names}


def _all_losses(folder: Path) -> None:
    torch.set_num_threads(1)
    found = {case: losses(case, folder) for case in CASES}
    if comm.is_main_process():
        torch.save(found, folder / "losses.pth")


def losses_of(processes: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    """By case and name, trained by so many processes."""
    launch(_all_losses, processes, args=(folder,))
    return torch.load(folder / "losses.pth")


def largest_difference(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> float:
    """Of any step and loss, relative to that loss."""
    assert ours.keys() == theirs.keys() and "total_loss" in ours and "loss_ortho" in ours
    pairs = [pair for name in ours for pair in zip(ours[name], theirs[name], strict=True)]
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in pairs)
