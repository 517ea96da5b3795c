"""A model of two convolutions, small enough to compare bit by bit, and its training."""

from pathlib import Path

import small_runs
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.engine.trainer import Trainer


@META_ARCH_REGISTRY.register()
class TwoConvolutions(nn.Module):
    """A model small enough to compare bit by bit."""

    def __init__(self, cfg):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
        self.double()

    def forward(self, batch):
        return {"loss": self.backbone(torch.stack(batch)).square().mean()}


class OwnShareTrainer(Trainer):
    """Every step sees the same four images, each process its own share of them."""

    @classmethod
    def build_train_loader(cls, cfg):
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
        share = list(images.chunk(comm.get_world_size())[comm.get_rank()])
        return [share] * 100

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        return {}


def toy_config(output_dir, *opts: str):
    cfg = load_config(
        "",
        ["MODEL.META_ARCHITECTURE", "TwoConvolutions", "MODEL.DEVICE", "cpu",
         "SOLVER.BASE_LR", "0.05", "SOLVER.WARMUP_ITERS", "0", "SOLVER.STEPS", "(3,)",
         "SOLVER.MAX_ITER", "4", "SOLVER.IMS_PER_BATCH", "4", "SOLVER.CHECKPOINT_PERIOD", "2",
         "SOLVER.ORTHO_COEFF", "0.01", "OUTPUT_DIR", str(output_dir), *opts],
    )  # fmt: skip
    Path(output_dir).mkdir(exist_ok=True)
    return cfg


def weights(trainer) -> list[torch.Tensor]:
    return small_runs.weights(trainer.model)


def train(cfg, resume: bool = False) -> OwnShareTrainer:
    return small_runs.run(cfg, OwnShareTrainer, resume)
