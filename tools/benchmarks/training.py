"""Training steps on R-ISONet-50: against detectron2, and with keys for speed or memory."""

import argparse
import itertools
from collections.abc import Callable, Iterator

import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.engine.train_loop import AccumulatingTrainer
from d2_isonet.isometry.regularizer import OrthogonalRegularizer

from .detectors import build_detector, build_pair, training_batch
from .measure import Comparison, compare_memory, compare_seconds

# Name of a row -> (precision, opts)
_CHANNELS_LAST = ("MODEL.BACKBONE.CHANNELS_LAST", "True")
_KEYS = {
    "bfloat16": ("bfloat16", ()),
    "channels_last": ("float32", _CHANNELS_LAST),
    "bfloat16, channels_last": ("bfloat16", _CHANNELS_LAST),
    "checkpointing": ("float32", ("MODEL.BACKBONE.CHECKPOINTING", "True")),
    "compiled": ("float32", ("MODEL.BACKBONE.COMPILE", "True")),
}


def compare_steps(options: argparse.Namespace) -> Iterator[Comparison]:
    """A training step of Mask R-CNN on R-ISONet-50, penalty on, against detectron2's R50, FrozenBN.

    Rows of time and memory by head, then of the penalty's share of a step, detection and
    pretraining.
    """
    size = [96, 128] if options.quick else options.image_size
    batch = training_batch(size)
    for head in options.head[:1] if options.quick else options.head:
        name = f"{head}, 2 images of {size[0]} x {size[1]}"
        ours, peer = build_pair(head, options)
        steps = (step(ours, batch, penalty=True), step(peer, batch, penalty=False))
        yield compare_seconds(f"{name}, time", *steps, options, limit=1.0)
        yield compare_memory(f"{name}, peak memory", *steps, options, limit=1.0)
        if head == "dc5":
            yield _compare_penalty(name, ours, batch, 1.01, options)
    yield _compare_penalty(*classifier_task(options), 1.02, options)


def _compare_penalty(
    name: str, model: nn.Module, batch: list, limit: float, options: argparse.Namespace
) -> Comparison:
    steps = (step(model, batch, penalty=True), step(model, batch, penalty=False))
    gpu_limit = limit if options.device != "cpu" else None
    name = f"penalty in a step, {name}"
    return compare_seconds(name, *steps, options, limit=gpu_limit, note="promised on a GPU")


def compare_keys(options: argparse.Namespace) -> Iterator[Comparison]:
    """Training steps with half precision, channels_last, recomputation or compilation, and without.

    Rows of time and peak memory, Mask R-CNN DC5 and the classifier, R-ISONet-50, penalty on.
    """
    for task in (detector_task, classifier_task):
        name, model, batch = task(options)
        plain = step(model, batch, penalty=True)
        for key, (precision, opts) in _KEYS.items():
            _, model, batch = task(options, *opts)
            ours = step(model, batch, penalty=True, precision=precision)
            losses = []
            for run in (ours, plain):
                torch.manual_seed(0)
                losses.append(run())
            note = "loss {:.4f} against {:.4f}".format(*losses)
            yield compare_seconds(f"{name}, {key}, time", ours, plain, options, note=note)
            yield compare_memory(f"{name}, {key}, peak memory", ours, plain, options)


def detector_task(options: argparse.Namespace, *opts: str) -> tuple[str, nn.Module, list[dict]]:
    """A description, Mask R-CNN DC5 on R-ISONet-50 and a batch for it."""
    size = [64, 96] if options.quick else options.image_size
    model = build_detector("risonet50_dc5", options, *opts)
    return f"dc5, 2 images of {size[0]} x {size[1]}", model, training_batch(size)


def classifier_task(options: argparse.Namespace, *opts: str) -> tuple[str, nn.Module, list[dict]]:
    """A description, R-ISONet-50 as a classifier and a batch for it."""
    count, side = (2, 64) if options.quick else (32, 224)
    model = build_classifier(50, options.device, *opts)
    name = f"classifier R50, {count} images of {side} x {side}"
    return name, model, labelled_images(count, side)


def build_classifier(depth: int, device: str, *opts: str) -> nn.Module:
    """R-ISONet as a classifier of 1,000 classes, randomly initialized, in training mode."""
    torch.manual_seed(0)
    opts = ("MODEL.DEVICE", device, "MODEL.CLASSIFIER.NUM_CLASSES", "1000", *opts)
    return build_model(load_config(f"configs/imagenet/risonet{depth}.yaml", list(opts))).train()


def labelled_images(count: int, side: int, device: str = "cpu") -> list[dict]:
    """A batch of random images for a classifier, already on the device."""
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    return [{"image": image.to(device), "label": i} for i, image in enumerate(images)]


def step(
    model: nn.Module, batch: list[dict], penalty: bool, precision: str = "float32"
) -> Callable[[], float]:
    """The Trainer's step with its checks; with learning rate 0, so that every step is the same.

    The function returns the loss. Half precision is bfloat16, without loss scaling.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9, fused=True)  # as in the Trainer
    options = {
        "precision": "" if precision == "float32" else precision,
        "device_type": parameters[0].device.type,
    }
    trainer = AccumulatingTrainer(model, itertools.repeat(batch), optimizer, **options)
    trainer.register_hooks([OrthogonalRegularizer(1e-4)] if penalty else [])
    trainer.iter = 0
    trainer.before_train()

    def run() -> float:
        with EventStorage() as trainer.storage:
            trainer.run_step()
            return trainer.storage.latest()["total_loss"][0]

    return run
