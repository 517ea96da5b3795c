#!/usr/bin/env python
"""What 8, 64 and 512 GPUs would take, on paper: what is counted over what is assumed.

python tools/scaling_plan.py                       the tables of docs/scaling.md
python tools/scaling_plan.py --network-gb 50       on another network
"""

import argparse
import math
from dataclasses import dataclass

import torch
from benchmarks.detectors import build_pair, training_batch
from benchmarks.training import step
from detectron2.modeling import build_model
from tabulate import tabulate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from d2_isonet.config.loading import load_config

GPUS = (8, 64, 512)
BUCKET = 25e6  # bytes that DistributedDataParallel reduces at once (its default)


@dataclass(frozen=True)
class Task:
    """A training as its yaml has it for eight processes.

    Args:
        images: of one epoch.
        schedule: images seen in all.
        batch: images of a step of eight processes; lr: its learning rate.
        largest_batch: up to which the linear rule has been shown, by others and with BN.
        image_bytes: of a file, mean.
        tflops: assumed to be reached by one GPU, of the counted operations.
    """

    name: str
    images: int
    schedule: int
    batch: int
    lr: float
    largest_batch: int
    image_bytes: float
    tflops: float


IMAGENET = Task(
    "ImageNet, R-ISONet-50", 1_281_167, 100 * 1_281_167, 256, 0.1, 8192, 115e3, tflops=60
)
COCO = Task("Mask R-CNN, R-ISONet-50 FPN", 118_287, 90_000 * 16, 16, 0.01, 256, 163e3, tflops=12)


@dataclass(frozen=True)
class Cost:
    """Of one step of one GPU: operations (2 a multiply-add) an image and a step, bytes."""

    per_image: float
    per_step: float
    gradient_bytes: float
    checkpoint_bytes: float


def count_classifier() -> Cost:
    """Forward and backward of one image, and the penalty of one step, in operations."""
    opts = ["MODEL.DEVICE", "cpu", "MODEL.CLASSIFIER.NUM_CLASSES", "1000"]
    model = build_model(load_config("configs/imagenet/risonet50.yaml", opts)).train()
    image = torch.randint(0, 256, (3, 224, 224), dtype=torch.uint8)
    return _count(model, [{"image": image, "label": 0}])


def count_detector(options: argparse.Namespace) -> Cost:
    """The same of one image of 800 x 1216, the mean shape of COCO's at that scale."""
    model, _ = build_pair("fpn", options)
    return _count(model, training_batch([800, 1216], 1))


def _count(model: nn.Module, batch: list[dict]) -> Cost:
    with FlopCounterMode(display=False) as without:
        step(model, batch, penalty=False)()
    with FlopCounterMode(display=False) as with_penalty:
        step(model, batch, penalty=True)()
    per_image = without.get_total_flops()
    penalty = max(0, with_penalty.get_total_flops() - per_image)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() for p in model.parameters())
    return Cost(per_image, penalty, 4.0 * trained, 4.0 * (every + trained))  # with momentum


def all_reduce_seconds(size: float, gpus: int, options: argparse.Namespace) -> float:
    """Ring: every GPU sends 2 (n - 1) / n of `size` bytes, in 2 (n - 1) hops a bucket.

    Within a machine over NVLink; over the network the eight GPUs share its links.
    """
    machines = max(1, gpus // 8)
    link = options.nvlink_gb if machines == 1 else options.network_gb
    buckets = math.ceil(size / BUCKET)
    hop = 2e-6 if machines == 1 else 5e-6
    return 2 * (gpus - 1) / gpus * size / (link * 1e9) + buckets * 2 * (gpus - 1) * hop


def row(task: Task, cost: Cost, gpus: int, options: argparse.Namespace) -> dict[str, str]:
    """One number of GPUs: its batch, steps, and what each part of a step takes."""
    batch = min(task.batch * gpus // 8, max(task.largest_batch, gpus))
    images = batch / gpus
    steps = math.ceil(task.schedule / batch)
    compute = (images * cost.per_image + cost.per_step) / (task.tflops * 1e12)
    communication = all_reduce_seconds(cost.gradient_bytes, gpus, options)
    hidden = compute * 2 / 3  # DistributedDataParallel sends while backward computes
    total = compute + max(0.0, communication - hidden)
    speed = batch / total
    return {
        "GPUs": str(gpus),
        "batch": f"{batch} ({images:g} a GPU)",
        "lr": f"{task.lr * batch / task.batch:g}",
        "steps": f"{steps:,}",
        "compute": f"{1e3 * compute:.1f} ms",
        "all-reduce": f"{1e3 * communication:.1f} ms",
        "efficiency": f"{images * cost.per_image / (task.tflops * 1e12) / total:.0%}",
        "images/s": f"{speed:,.0f}",
        "files": f"{speed * task.image_bytes / 1e9:.2f} GB/s",
        "decoding cores": f"{speed / options.core_images:,.0f}",
        "hours": f"{steps * total / 3600:.2g}",
    }


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--nvlink-gb", type=float, default=230, help="GB/s an all-reduce reaches in a machine (230)"
    )
    add("--network-gb", type=float, default=80, help="the same between machines (80)")
    add("--disk-gb", type=float, default=1, help="GB/s at which a checkpoint is written (1)")
    add("--core-images", type=float, default=250, help="images a CPU core reads in a second (250)")
    return parser.parse_args(arguments)


def main(options: argparse.Namespace) -> None:
    options.device = "cpu"
    for task, cost in ((IMAGENET, count_classifier()), (COCO, count_detector(options))):
        print(
            f"\n{task.name}: {cost.per_image / 1e9:.1f} GFLOP an image, penalty "
            f"{cost.per_step / 1e9:.1f} GFLOP a step and GPU; {task.tflops:g} TFLOP/s assumed; "
            f"{cost.gradient_bytes / 1e6:.0f} MB of gradients; a checkpoint has "
            f"{cost.checkpoint_bytes / 1e6:.0f} MB, "
            f"{cost.checkpoint_bytes / options.disk_gb / 1e9:.2f} s to write"
        )
        rows = [row(task, cost, gpus, options) for gpus in GPUS]
        print(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main(parse_args())
