"""Pretraining steps as configured for speed against a plain loop over the authors' formulation."""

import argparse
from collections.abc import Callable, Iterator

import torch
from detectron2.layers import Conv2d
from detectron2.modeling import build_model
from torch import nn

from d2_isonet import SReLU
from d2_isonet.config.loading import load_config
from d2_isonet.modeling.stages import default_convolutions

from .measure import Comparison, seconds_in_turn
from .regularizer import attached_hook, penalty_by_convolution
from .srelu import Formula

# What a GPU gets; on a CPU half precision is not trained in.
_FAST = {"cuda": ["MODEL.BACKBONE.CHANNELS_LAST", "True"], "cpu": []}


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """Images per second of R-ISONet-34 and -50; the batch is on the device already."""
    num_images, side = (2, 64) if options.quick else (32, 224)
    images = torch.randint(0, 256, (num_images, 3, side, side), dtype=torch.uint8)
    batch = [{"image": x.to(options.device), "label": i} for i, x in enumerate(images)]
    precisions = ["float32"] if options.device == "cpu" else ["bfloat16", "float32"]
    for depth in (18,) if options.quick else (34, 50):
        for precision in precisions:
            ours = plain_step(_classifier(depth, options, fast=True), batch, precision)
            peer = _peer(_as_authors(_classifier(depth, options, fast=False)), batch)
            seconds = seconds_in_turn(ours, peer, options.repetitions, options.device, warm_up=2)
            speeds = [[num_images / t for t in side_seconds] for side_seconds in seconds]
            yield Comparison(
                f"R-ISONet-{depth}, {precision}, {num_images} images of {side} x {side}",
                *speeds,
                unit="images/s",
                limit=2.5 if precision == "bfloat16" else None,
                more_is_better=True,
            )


def _classifier(depth: int, options: argparse.Namespace, fast: bool) -> nn.Module:
    torch.manual_seed(0)
    opts = ["MODEL.DEVICE", options.device, "MODEL.CLASSIFIER.NUM_CLASSES", "1000"]
    opts += _FAST[options.device] if fast else []
    return build_model(load_config(f"configs/imagenet/risonet{depth}.yaml", opts)).train()


def plain_step(model: nn.Module, batch: list[dict], precision: str) -> Callable[[], None]:
    """Forward, backward, penalty and SGD's step, without the checks and exchanges of a trainer."""
    device = next(model.parameters()).device.type
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    attached_hook(optimizer, default_convolutions(model))

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()

    return step


def _peer(model: nn.Module, batch: list[dict]) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    convs = default_convolutions(model)

    def step() -> None:
        penalty = torch.stack([penalty_by_convolution(conv) for conv in convs.values()]).sum()
        loss = sum(model(batch).values()) + 1e-4 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _as_authors(model: nn.Module) -> nn.Module:
    """SReLU as the formula, the residual scale as a factor of the activations."""
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
