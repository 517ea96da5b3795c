"""Pretraining as configured for speed against a plain loop over the authors' formulation."""

import argparse
from collections.abc import Callable, Iterator

import torch
from detectron2.layers import Conv2d
from torch import nn

from d2_isonet import SReLU
from d2_isonet.modeling.stages import default_convolutions

from .measure import Comparison, compare_speeds, seconds_in_turn
from .operators import Formula, attached_hook, penalty_by_convolution
from .training import build_classifier, labelled_images

# Options for speed on a GPU; on a CPU nobody trains in half precision.
_FAST = {"cuda": ("MODEL.BACKBONE.CHANNELS_LAST", "True"), "cpu": ()}


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """Pretraining steps as configured for speed against a plain loop over the authors' formulation.

    Images per second of R-ISONet-34 and -50; the batch is on the device already.
    """
    count, side = (2, 64) if options.quick else (32, 224)
    batch = labelled_images(count, side, options.device)
    precisions = ["float32"] if options.device == "cpu" else ["bfloat16", "float32"]
    for depth in (18,) if options.quick else (34, 50):
        for precision in precisions:
            fast = build_classifier(depth, options.device, *_FAST[options.device])
            ours = plain_step(fast, batch, precision)
            peer = _peer(as_authors(build_classifier(depth, options.device)), batch)
            seconds = seconds_in_turn(ours, peer, options.repetitions, options.device, warm_up=2)
            name = f"R-ISONet-{depth}, {precision}, {count} images of {side} x {side}"
            limit = 2.5 if precision == "bfloat16" else None
            yield compare_speeds(name, count, seconds, limit=limit)


def plain_step(model: nn.Module, batch: list[dict], precision: str) -> Callable[[], None]:
    """Forward, backward, penalty and SGD's step, without a trainer's checks and exchanges."""
    device = next(model.parameters()).device.type
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    attached_hook(optimizer, default_convolutions(model))

    def loss() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            return sum(model(batch).values())

    return _step(loss, optimizer)


def _peer(model: nn.Module, batch: list[dict]) -> Callable[[], None]:
    convs = default_convolutions(model).values()

    def loss() -> torch.Tensor:
        penalty = torch.stack([penalty_by_convolution(conv) for conv in convs]).sum()
        return sum(model(batch).values()) + 1e-4 * penalty

    return _step(loss, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))


def _step(loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    def step() -> None:
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


def as_authors(model: nn.Module) -> nn.Module:
    """Change SReLU to its formula and the residual scale to a factor of the activations."""
    for module in model.modules():
        if isinstance(getattr(module, "activation", None), SReLU):
            module.activation = _formula_of(module.activation)
        if hasattr(module, "_scale_in_weight"):
            module._scale_in_weight = False
    assert not any(isinstance(module, SReLU) for module in model.modules())
    assert any(isinstance(module, Conv2d) for module in model.modules())
    return model


def _formula_of(activation: SReLU) -> Formula:
    formula = Formula(activation.shift.numel()).to(activation.shift.device)
    with torch.no_grad():
        formula.shift.copy_(activation.shift.view_as(formula.shift))
    return formula
