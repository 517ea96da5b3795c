"""A training step of Mask R-CNN on R-ISONet-50, penalty on, against detectron2's R50, FrozenBN."""

import argparse
import itertools
from collections.abc import Callable, Iterator

import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.engine.train_loop import AccumulatingTrainer, AMPTrainer
from d2_isonet.isometry.regularizer import OrthogonalRegularizer

from .detectors import build_pair, training_batch
from .measure import Comparison, peak_megabytes, seconds_in_turn


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """Time and memory by head; then what the penalty adds to a step, detection and pretraining."""
    size = [96, 128] if options.quick else options.image_size
    batch = training_batch(size)
    where = f"2 images of {size[0]} x {size[1]}"
    for head in options.head[:1] if options.quick else options.head:
        ours, peer = build_pair(head, options)
        steps = (step(ours, batch, penalty=True), step(peer, batch, penalty=False))
        yield from _rows(f"{head}, {where}", steps, options)
        if head == "dc5":
            yield _penalty(f"penalty in a step, dc5, {where}", ours, batch, 1.01, options)
    for name, (model, batch) in classifier_task(options).items():
        yield _penalty(f"penalty in a step, {name}", model, batch, 1.02, options)


def _rows(name: str, steps: tuple, options: argparse.Namespace) -> Iterator[Comparison]:
    seconds = seconds_in_turn(*steps, options.repetitions, options.device)
    yield Comparison(f"{name}, time", *seconds, limit=1.0)
    memory = [[peak_megabytes(function, options.device)] for function in steps]
    yield Comparison(f"{name}, peak memory", *memory, unit="MB", limit=1.0)


def _penalty(name: str, model: nn.Module, batch: list, limit: float, options) -> Comparison:
    steps = (step(model, batch, penalty=True), step(model, batch, penalty=False))
    seconds = seconds_in_turn(*steps, options.repetitions, options.device)
    on_gpu = options.device != "cpu"
    return Comparison(name, *seconds, limit=limit if on_gpu else None, note="promised on a GPU")


def classifier_task(
    options: argparse.Namespace, *opts: str
) -> dict[str, tuple[nn.Module, list[dict]]]:
    """What it is -> R-ISONet-50 as a classifier and a batch for it."""
    num_images, side = (2, 64) if options.quick else (32, 224)
    opts = ("MODEL.DEVICE", options.device, "MODEL.CLASSIFIER.NUM_CLASSES", "1000", *opts)
    torch.manual_seed(0)
    model = build_model(load_config("configs/imagenet/risonet50.yaml", list(opts))).train()
    images = torch.randint(0, 256, (num_images, 3, side, side), dtype=torch.uint8)
    batch = [{"image": image, "label": i} for i, image in enumerate(images)]
    return {f"classifier R50, {num_images} images of {side} x {side}": (model, batch)}


def step(
    model: nn.Module, batch: list[dict], penalty: bool, precision: str = "float32"
) -> Callable[[], float]:
    """The Trainer's own step with its checks, with the hook or without; lr 0, so always the same.

    It returns the loss. Half precision is bfloat16, without loss scaling.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    # in one kernel, as the Trainer has it
    optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9, fused=True)
    trainer = _trainer(model, itertools.repeat(batch), optimizer, precision)
    trainer.register_hooks([OrthogonalRegularizer(1e-4)] if penalty else [])
    trainer.iter = 0
    trainer.before_train()

    def run() -> float:
        with EventStorage() as trainer.storage:
            trainer.run_step()
            return trainer.storage.latest()["total_loss"][0]

    return run


def _trainer(model: nn.Module, data, optimizer, precision: str) -> AccumulatingTrainer:
    if precision == "float32":
        return AccumulatingTrainer(model, data, optimizer)
    device = next(model.parameters()).device.type
    return AMPTrainer(model, data, optimizer, precision=precision, device_type=device)
