"""A training of the real Trainer that starts at once and has all that a resume must restore."""

import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.data.imagenet import build_image_train_loader
from d2_isonet.data.loader import LoaderOptions
from d2_isonet.engine.trainer import Trainer

NUM_IMAGES = 37  # no multiple of the batch
PERIOD = 10


class NoisyVector:
    """A mapper that draws from all three generators, as augmentations do."""

    def __call__(self, dataset_dict: dict) -> dict:
        numbers = [random.random(), np.random.rand(), torch.rand(1).item()]
        image = torch.full((64,), float(dataset_dict["image_id"])) / NUM_IMAGES
        image[:3] += torch.tensor(numbers)
        return {**dataset_dict, "image": image}


@META_ARCH_REGISTRY.register()
class ToyWithDropout(nn.Module):
    megabytes = 4.0  # of a checkpoint, so that a save takes a while

    def __init__(self, cfg):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.3), nn.Linear(32, 1))
        self.register_buffer("ballast", torch.zeros(int(self.megabytes * 1e6 / 4)))

    def forward(self, batch):
        images = torch.stack([x["image"] for x in batch])
        return {"loss": (self.backbone(images) - random.random()).square().mean()}


class Best(HookBase):
    """Depends on every evaluation, as a best checkpoint and early stopping do."""

    def __init__(self):
        self.history = 0.0

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.trainer.cfg.TEST.EVAL_PERIOD == 0 and done < self.trainer.max_iter:
            self.history = 0.5 * self.history + self.trainer._last_eval_results["value"]

    def state_dict(self) -> dict:
        return {"history": self.history}

    def load_state_dict(self, state: dict) -> None:
        self.history = state["history"]


def record_of(folder) -> Path:
    """Beside the output folder: the disk of that may be full."""
    return Path(f"{folder}.steps")


class Record(HookBase):
    """Appends "iteration loss history" of every step to a file, to the last bit."""

    def __init__(self, best: Best):
        self.best = best

    def after_step(self) -> None:
        loss = self.trainer.storage.latest()["total_loss"][0]
        with open(record_of(self.trainer.cfg.OUTPUT_DIR), "a") as file:
            file.write(f"{self.trainer.iter} {loss.hex()} {float(self.best.history).hex()}\n")


class ToyTrainer(Trainer):
    @classmethod
    def build_train_loader(cls, cfg):
        dicts = [{"image_id": i} for i in range(NUM_IMAGES)]
        workers = cfg.DATALOADER.NUM_WORKERS
        options = LoaderOptions(cfg.SOLVER.IMS_PER_BATCH, workers, cfg.SEED)
        return build_image_train_loader(dicts, NoisyVector(), options)

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        torch.rand(5), np.random.rand(), random.random()  # an evaluation that draws
        weight = next(model.parameters()).detach()
        return {"value": float(weight.abs().sum())}

    def hooks_after_evaluation(self) -> list[HookBase]:
        return [Best()]

    def build_hooks(self) -> list[HookBase]:
        hooks = super().build_hooks()
        best = next(hook for hook in hooks if isinstance(hook, Best))
        return [Record(best), *hooks] if comm.is_main_process() else hooks


def toy_config(folder, steps: int, workers: int = 0, *opts: str):
    return load_config(
        "",
        ["MODEL.META_ARCHITECTURE", "ToyWithDropout", "MODEL.DEVICE", "cpu", "SEED", "5",
         "DATALOADER.NUM_WORKERS", str(workers), "SOLVER.CHECKPOINT_MAX_TO_KEEP", "2",
         "SOLVER.BASE_LR", "0.01", "SOLVER.WARMUP_ITERS", "20", "SOLVER.STEPS", "(55,)",
         "SOLVER.MAX_ITER", str(steps), "SOLVER.IMS_PER_BATCH", "4", "TEST.EVAL_PERIOD", "15",
         "SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CHECKPOINT_PERIOD", str(PERIOD),
         "SOLVER.ORTHO_COEFF", "0.0", "OUTPUT_DIR", str(folder), *opts],
    )  # fmt: skip


def train(folder, steps: int, workers: int = 0, *opts: str) -> None:
    """A run with --resume."""
    torch.manual_seed(0)  # the scripts' set-up does this with SEED
    Path(folder).mkdir(parents=True, exist_ok=True)
    trainer = ToyTrainer(toy_config(folder, steps, workers, *opts))
    trainer.resume_or_load(resume=True)
    trainer.train()


def recorded(folder) -> dict[int, set[str]]:
    """What was recorded of each iteration; one entry each where no step went another way."""
    steps = defaultdict(set)
    for line in record_of(folder).read_text().splitlines():
        iteration, values = line.split(" ", 1)
        steps[int(iteration)].add(values)
    return dict(steps)


def final_weights(folder) -> dict:
    return torch.load(Path(folder) / "model_final.pth", weights_only=True)["model"]
