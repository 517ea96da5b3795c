"""Compute on paper how long 8, 64 and 512 GPUs train: from counted operations and assumed speeds.

python tools/scaling_plan.py                       the tables of docs/scaling.md
python tools/scaling_plan.py --network-gb 50       with another network
"""

import argparse
import math
from dataclasses import dataclass

from tabulate import tabulate

GPUS = (8, 64, 512)
BUCKET = 25e6  # bytes that DistributedDataParallel reduces at once (its default)


@dataclass(frozen=True)
class Task:
    """A training as its yaml defines it for eight processes.

    Args:
        schedule: images of the whole training, repetitions included.
        batch: images per step of eight processes; lr: its learning rate.
        largest_batch: the largest for which the linear rule was shown, by others and with BN.
        image_bytes: mean size of a file.
        tflops: assumed speed of one GPU on the counted operations.
    """

    name: str
    schedule: int
    batch: int
    lr: float
    largest_batch: int
    image_bytes: float
    tflops: float


IMAGENET = Task("ImageNet, R-ISONet-50", 100 * 1_281_167, 256, 0.1, 8192, 115e3, tflops=60)
COCO = Task("Mask R-CNN, R-ISONet-50 FPN", 90_000 * 16, 16, 0.01, 256, 163e3, tflops=12)


@dataclass(frozen=True)
class Cost:
    """The cost of one step on one GPU: operations (2 per multiply-add) and bytes.

    Args:
        per_image: operations of forward and backward of one image.
        per_step: operations of the penalty.
    """

    per_image: float
    per_step: float
    gradient_bytes: float
    checkpoint_bytes: float


def add_arguments(parser) -> None:
    """Add the assumed speeds to a parser or to a group of its arguments."""
    add = parser.add_argument
    add("--nvlink-gb", type=float, default=230, metavar="GB",
        help="GB/s of an all-reduce within a machine (230)")  # fmt: skip
    add("--network-gb", type=float, default=80, metavar="GB",
        help="GB/s of an all-reduce between machines (80)")  # fmt: skip
    add("--disk-gb", type=float, default=1, metavar="GB",
        help="GB/s at which a checkpoint is written (1)")  # fmt: skip
    add("--core-images", type=float, default=250, metavar="N",
        help="images per second that a CPU core decodes (250)")  # fmt: skip


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    show(parse_args(arguments))


def show(options: argparse.Namespace) -> None:
    """Count the operations of each task and print its table."""
    from .detectors import build_detector, training_batch
    from .training import build_classifier, labelled_images

    classifier, images = build_classifier(50, "cpu"), labelled_images(1, 224)
    detector = build_detector("risonet50_fpn", argparse.Namespace(device="cpu"))
    scenes = training_batch([800, 1216], 1)  # the mean shape of COCO at that scale
    for task, cost in ((IMAGENET, count(classifier, images)), (COCO, count(detector, scenes))):
        print(
            f"\n{task.name}: {cost.per_image / 1e9:.1f} GFLOP an image, penalty "
            f"{cost.per_step / 1e9:.1f} GFLOP a step and GPU; {task.tflops:g} TFLOP/s assumed; "
            f"{cost.gradient_bytes / 1e6:.0f} MB of gradients; a checkpoint has "
            f"{cost.checkpoint_bytes / 1e6:.0f} MB, "
            f"{cost.checkpoint_bytes / options.disk_gb / 1e9:.2f} s to write"
        )
        rows = [row(task, cost, gpus, options) for gpus in GPUS]
        print(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))


def row(task: Task, cost: Cost, gpus: int, options: argparse.Namespace) -> dict[str, str]:
    """The batch and schedule on a number of GPUs, and the time of each part of a step."""
    batch = min(task.batch * gpus // 8, max(task.largest_batch, gpus))
    images = batch / gpus
    steps = math.ceil(task.schedule / batch)
    compute = (images * cost.per_image + cost.per_step) / (task.tflops * 1e12)
    communication = all_reduce_seconds(cost.gradient_bytes, gpus, options)
    hidden = compute * 2 / 3  # DistributedDataParallel sends during backward
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


def all_reduce_seconds(size: float, gpus: int, options: argparse.Namespace) -> float:
    """Seconds of a ring: each GPU sends 2 (n - 1) / n of `size` bytes in 2 (n - 1) hops a bucket.

    Within a machine it uses NVLink; between machines, eight GPUs share the links of the network.
    """
    link, hop = (options.nvlink_gb, 2e-6) if gpus < 16 else (options.network_gb, 5e-6)
    buckets = math.ceil(size / BUCKET)
    return 2 * (gpus - 1) / gpus * size / (link * 1e9) + buckets * 2 * (gpus - 1) * hop


def count(model, batch: list[dict]) -> Cost:
    """The cost of a training step of the model on a batch of one image."""
    from torch.utils.flop_counter import FlopCounterMode

    from .training import step

    operations = []
    for penalty in (False, True):
        with FlopCounterMode(display=False) as counter:
            step(model, batch, penalty)()
        operations.append(counter.get_total_flops())
    per_image, whole = operations
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() for p in model.parameters())
    return Cost(
        per_image, max(0, whole - per_image), 4.0 * trained, 4.0 * (every + trained)
    )  # with momentum
