"""Trainings of the Trainer that take a fraction of a second: four images, two convolutions."""

from pathlib import Path

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.engine.trainer import Trainer


class SquareRoot(nn.Module):
    """Its gradient is infinite where its input is 0."""

    def forward(self, x):
        return x.abs().sqrt()


@META_ARCH_REGISTRY.register()
class SmallModel(nn.Module):
    """The loss is a mean over images, in float64; of a black image its gradient is not finite."""

    def __init__(self, cfg=None):
        super().__init__()
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(6) if cfg and cfg.MODEL.RESNETS.NORM == "BN" else nn.Identity()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False), norm, SquareRoot(), nn.Conv2d(6, 4, 3)
        )
        self.double()

    def forward(self, batch):
        images = torch.stack([x["image"] for x in batch])
        if any(x["file_name"] == "raising.jpg" for x in batch):  # as the RPN does, in one process
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN")
        return {"loss_toy": self.backbone(images).square().mean()}


def images(seed: int) -> list[dict]:
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
    return [{"image": image, "file_name": f"{seed}_{i}.jpg"} for i, image in enumerate(x)]


def black(image: dict) -> dict:
    """A finite loss with a gradient that is not."""
    return {"image": torch.zeros(3, 8, 8).double(), "file_name": "black.jpg"}


def blinding(image: dict) -> dict:
    """Finite pixels, each of the first filter's sign, whose sum overflows in that convolution."""
    with torch.random.fork_rng(devices=[]):
        filters = SmallModel().backbone[0].weight
    pixels = filters[0].detach().sign().repeat(1, 3, 3)[:, :8, :8] * 1.7e308
    return {"image": pixels, "file_name": "blinding.jpg"}


def raising(image: dict) -> dict:
    """An image at which the model raises FloatingPointError."""
    return {**image, "file_name": "raising.jpg"}


class SmallTrainer(Trainer):
    """Each process trains on its own share; evaluations give `scores` one after the other."""

    spoilt: dict = {}  # (iteration, index in the batch) -> a function of the image
    scores: list = []
    evaluated: list = []  # what the first weight was

    @classmethod
    def build_train_loader(cls, cfg):
        batches = [images(i % 3) for i in range(12)]
        for (iteration, index), spoil in cls.spoilt.items():
            batches[iteration][index] = spoil(batches[iteration][index])
        size, rank = 4 // comm.get_world_size(), comm.get_rank()
        return [batch[size * rank : size * (rank + 1)] for batch in batches]

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        cls.evaluated.append(next(model.parameters()).detach().clone())
        score = cls.scores[len(cls.evaluated) - 1] if cls.scores else 0.0
        return {"toy": {"score": score}} if comm.is_main_process() else {}


def trainer_class(**attributes) -> type[SmallTrainer]:
    return type("ThisTrainer", (SmallTrainer,), {"evaluated": [], **attributes})


def small_config(output_dir, *opts: str):
    cfg = load_config(
        "",
        ["MODEL.META_ARCHITECTURE", "SmallModel", "MODEL.DEVICE", "cpu", "SOLVER.BASE_LR", "0.05",
         "SOLVER.WARMUP_ITERS", "0", "SOLVER.STEPS", "(2,)", "SOLVER.MAX_ITER", "6",
         "SOLVER.IMS_PER_BATCH", "4", "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.ORTHO_COEFF", "0.01",
         "MODEL.RESNETS.NORM", "", "OUTPUT_DIR", str(output_dir), *opts],
    )  # fmt: skip
    Path(output_dir).mkdir(exist_ok=True)
    return cfg


def run(cfg, trainer=SmallTrainer, resume: bool = False):
    """The trainer of a whole training."""
    trainer = trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def weights(model) -> list[torch.Tensor]:
    return [p.detach().clone() for p in getattr(model, "module", model).parameters()]


def load(path) -> dict:
    return torch.load(path, weights_only=True)
