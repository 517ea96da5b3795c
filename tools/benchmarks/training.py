"""A training step of Mask R-CNN on R-ISONet-50, penalty on, against detectron2's R50, FrozenBN."""

import argparse
import types
from collections.abc import Callable, Iterator

import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

from benchmarks.detectors import build_pair, training_batch
from benchmarks.measure import Comparison, peak_megabytes, seconds_in_turn
from d2_isonet.command_line import load_config
from d2_isonet.regularizer import OrthogonalRegularizer


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
    """Forward, backward and SGD's step as the Trainer has them; with the hook, or without.

    It returns the loss. Half precision is bfloat16, without loss scaling.
    """
    device = next(model.parameters()).device.type
    parameters = [p for p in model.parameters() if p.requires_grad]
    # the same step every time; in one kernel, as the Trainer has it
    optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9, fused=True)
    hook = OrthogonalRegularizer(1e-4) if penalty else None

    def run() -> float:
        with EventStorage() as storage:
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
                loss = sum(model(batch).values())
            loss.backward()
            if hook is not None:
                hook.trainer = types.SimpleNamespace(
                    model=model, optimizer=optimizer, storage=storage, iter=0
                )
                hook.before_train()
            optimizer.step()
            if hook is not None:
                hook.after_train()
            return loss.item()

    return run
