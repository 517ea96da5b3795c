"""A network as it is looked at: convolutions, a chain of blocks, images to send through it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from d2_isonet.isometry.measures import Convolution


@dataclass(frozen=True)
class Network:
    """
    Args:
        title: what a reader knows it by.
        weights: the file they come from, or that they are as initialized.
        model: in eval mode.
        convolutions: those that are looked at, by name.
        blocks: the chain that a signal runs through.
        forward: normalized images (1, C, H, W) -> what the last block gives.
        images: such, one at a time: their sizes differ.
        image_source: what they are.
        notes: what a reader of the numbers must know.
    """

    title: str
    weights: str
    model: nn.Module
    convolutions: Mapping[str, Convolution]
    blocks: dict[str, nn.Module]
    forward: Callable[[torch.Tensor], torch.Tensor]
    images: list[torch.Tensor]
    image_source: str
    notes: list[str] = field(default_factory=list)


def initial_norms(model: nn.Module) -> list[str]:
    """Let batch norms of an untrained network normalize by the image; returns notes on norms.

    Their stored statistics say nothing yet: with those a ResNet doubles its signal in each block.
    """
    kinds = {type(module).__name__ for module in model.modules()}
    notes = []
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        for module in model.modules():
            module.train(isinstance(module, _BatchNorm))
        notes.append(
            "Batch norms use the statistics of each image: those of training are not there."
        )
    if "FrozenBatchNorm2d" in kinds:
        notes.append(
            "FrozenBatchNorm2d without trained statistics changes nothing: without --weights the "
            "signals are those of a network without norms."
        )
    return notes
