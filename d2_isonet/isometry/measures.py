"""How far convolutions, shifts of SReLU and residual scales are from isometry."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.stages import stage_of

from .criterion import Convolution, Pair, layer_of
from .penalty import minimum_orthogonal_penalty, orthogonal_penalty
from .singular_values import convolution_singular_values

NEAR_ONE = (0.9, 1.1)  # the range in which a singular value counts as near 1
BINS = (-2.5, 0.5, 30)  # lowest, highest, number of bins for shifts and scales
# Times the largest singular value; float32 cannot distinguish a smaller value from 0.
_ZERO = 1e-6


@dataclass(frozen=True)
class ConvolutionIsometry:
    """Measures of the weight of one convolution.

    Args:
        shape: (M, C / groups, kh, kw).
        singular_values: (n,) of the operator, largest first, without those that the shape forces
            to 0.
        penalty: the orthogonal penalty in its exact form (ISONet, eq. 13).
        minimum: its least value for this shape.
    """

    name: str
    shape: tuple[int, ...]
    stride: Pair
    dilation: Pair
    groups: int
    singular_values: torch.Tensor
    penalty: float
    minimum: float

    @property
    def stage(self) -> str:
        return stage_of(self.name)

    @property
    def largest(self) -> float:
        return self.singular_values[0].item()

    @property
    def smallest(self) -> float:
        return self.singular_values[-1].item()

    @property
    def condition(self) -> float:
        """Largest / smallest; infinite if the smallest is 0 to float32's precision."""
        if self.smallest <= _ZERO * self.largest:
            return float("inf")
        return self.largest / self.smallest

    @property
    def share_near_one(self) -> float:
        return share_near_one(self.singular_values)

    @property
    def excess(self) -> float:
        """penalty - minimum; 0 means as orthogonal as this shape can be."""
        return self.penalty - self.minimum


def share_near_one(singular_values: torch.Tensor) -> float:
    """The share of values (n,) in NEAR_ONE, 0 to 1."""
    low, high = NEAR_ONE
    return ((singular_values >= low) & (singular_values <= high)).float().mean().item()


def linear_convolutions(model: nn.Module) -> dict[str, Convolution]:
    """Every (transposed) 2D convolution of `model` by name, except DecoupledConv2d: not linear."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Convolution) and not isinstance(module, DecoupledConv2d)
    }


@torch.no_grad()
def measure_convolution(name: str, conv: Convolution, frequencies: int = 8) -> ConvolutionIsometry:
    """Singular values, penalty and its minimum of the weight of a (transposed) convolution.

    Args:
        frequencies: of the output along each axis: the operator acts on a circular image of
            (frequencies * stride) pixels per side.
    """
    shape, layer = tuple(conv.weight.shape), layer_of(conv)
    values = possible_singular_values(conv, frequencies)
    penalty = orthogonal_penalty(conv.weight.double(), *layer).item()
    minimum = minimum_orthogonal_penalty(shape, *layer)
    return ConvolutionIsometry(name, shape, *layer, values, penalty, minimum)


def possible_singular_values(conv: Convolution, frequencies: int) -> torch.Tensor:
    """(n,) singular values, largest first, without those that the shape forces to 0.

    `frequencies` is that of `measure_convolution`.
    """
    layer = layer_of(conv)
    size = [frequencies * stride for stride in layer[0]]
    # The least penalty is half the number of rows that the rank of the Gram lacks per frequency.
    rank = conv.weight.shape[0] - 2 * minimum_orthogonal_penalty(conv.weight.shape, *layer)
    values = convolution_singular_values(conv.weight.detach(), size, *layer)
    return values[: round(rank) * frequencies**2]


def shifts_by_stage(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The shifts b of all SReLUs of each stage, one per channel (ISONet, eq. 15 and figure 3)."""
    stages: dict[str, list[torch.Tensor]] = defaultdict(list)
    for name, value in _named(state_dict, "shift").items():
        stages[stage_of(name)].append(value.float().flatten())
    return {stage: torch.cat(values) for stage, values in stages.items()}


def residual_scales(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The factor on each residual branch, (1,) or (C,), by the name of the block."""
    return {name: value.float() for name, value in _named(state_dict, "residual_scale").items()}


def _named(state_dict: Mapping[str, torch.Tensor], parameter: str) -> dict[str, torch.Tensor]:
    """The value of each parameter with the name `parameter`, by the name of the module."""
    named = {name.rpartition("."): value for name, value in state_dict.items()}
    return {path: x.detach() for (path, _, last), x in named.items() if last == parameter}


def distribution(values: torch.Tensor) -> dict:
    """Mean, deviation, and counts in BINS; values outside count in the first or the last bin."""
    low, high, count = BINS
    return {
        "mean": values.mean().item(),
        "deviation": values.std(correction=0).item(),
        "counts": values.float().cpu().clamp(low, high).histc(count, low, high).int().tolist(),
    }
