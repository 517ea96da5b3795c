"""Pretraining: against a plain loop over the authors' formulation, and on several processes."""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from detectron2.layers import Conv2d
from detectron2.utils import comm
from torch import nn

from d2_isonet import SReLU
from d2_isonet.distributed.launch import launch
from d2_isonet.modeling.stages import default_convolutions
from d2_isonet.utils.compat import create_ddp_model

from .measure import Comparison, compare_speeds, seconds_in_turn, seconds_of
from .operators import Formula, attached_hook, penalty_by_autograd
from .training import build_classifier, labelled_images

# Options for speed on a GPU; on a CPU nobody trains in half precision.
_FAST = {"cuda": ("MODEL.BACKBONE.CHANNELS_LAST", "True"), "cpu": ()}
_STEPS = 5  # of several processes, timed together


def compare_speed(options: argparse.Namespace) -> Iterator[Comparison]:
    """Pretraining steps as configured for speed against a plain loop over the authors' formulation.

    Images per second of R-ISONet-34 and -50; the batch is on the device already.
    """
    count, side = (2, 64) if options.quick else (32, 224)
    batch = labelled_images(count, side, options.device)
    precisions = ["float32"] if options.device == "cpu" else ["bfloat16", "float32"]
    for depth in (18,) if options.quick else (34, 50):
        for precision in precisions:
            fast = build_classifier(depth, options.device, *_FAST[options.device])
            peer = as_authors(build_classifier(depth, options.device))
            steps = (plain_step(fast, batch, precision), plain_step(peer, batch, by_autograd=True))
            seconds = seconds_in_turn(steps, options, warm_up=2)
            name = f"R-ISONet-{depth}, {precision}, {count} images of {side} x {side}"
            limit = 2.5 if precision == "bfloat16" else None
            yield compare_speeds(name, count, seconds, limit=limit)


def plain_step(
    model: nn.Module, batch: list[dict], precision: str = "float32", by_autograd: bool = False
) -> Callable[[], None]:
    """Forward, backward, penalty and SGD's step, without a trainer's checks and exchanges.

    Args:
        by_autograd: the penalty is a part of the loss, as in the authors' code.
    """
    device, convs = next(model.parameters()).device.type, default_convolutions(model)
    fused = None if by_autograd else True
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=fused)
    if not by_autograd:
        attached_hook(optimizer, convs)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = sum(model(batch).values())
        if by_autograd:
            loss = loss + penalty_by_autograd(convs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def as_authors(model: nn.Module) -> nn.Module:
    """Change SReLU to its formula and the residual scale to a factor of the activations."""
    for module in model.modules():
        activation = getattr(module, "activation", None)
        if isinstance(activation, SReLU):
            module.activation = Formula(activation.shift.numel())
            module.activation.shift.data = activation.shift.data.view(1, -1, 1, 1)
        if hasattr(module, "_scale_in_weight"):
            module._scale_in_weight = False
    assert not any(isinstance(module, SReLU) for module in model.modules())
    assert any(isinstance(module, Conv2d) for module in model.modules())
    return model


def compare_processes(options: argparse.Namespace) -> Iterator[Comparison]:
    """Training on N gloo processes, the same images each, against N times the speed of one alone.

    The ratio is the efficiency: 1 if a process loses nothing to the others. Every process has one
    thread. More processes than cores share them, which alone makes the ratio cores / processes.
    """
    images, side = (2, 32) if options.quick else (8, 112)
    for processes in (1, 2) if options.quick else (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "seconds.pth"
            launch(_time_processes, processes, args=(images, side, options.repetitions, path))
            seconds = torch.load(path)
        name = f"R-ISONet-18, {processes} x {images} images of {side} x {side}"
        yield compare_speeds(name, processes * images, seconds, note=f"{processes} processes")


def _time_processes(images: int, side: int, repetitions: int, path: Path) -> None:
    """Write the seconds of a step of all processes together, and of the first while others wait."""
    torch.set_num_threads(1)
    model = build_classifier(18, "cpu")
    torch.manual_seed(comm.get_rank())
    batch = labelled_images(images, side)

    def steps_of(network: nn.Module) -> Callable[[], object]:
        # not a trainer's step, which would wait for the other processes
        step = plain_step(network, batch)
        return lambda: [step() for _ in range(_STEPS)]

    alone, together = steps_of(model), steps_of(create_ddp_model(model))
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 + repetitions):
        for function, taken in zip((together, alone), seconds, strict=True):
            comm.synchronize()
            if function is together or comm.is_main_process():
                taken.append(seconds_of(function) / _STEPS)
    if comm.is_main_process():
        torch.save([taken[1:] for taken in seconds], path)  # the first is a warm-up
