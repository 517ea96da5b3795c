"""How far convolutions, shifts of SReLU and residual scales are from isometry."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.stages import stage_of

from .penalty import Pair, minimum_orthogonal_penalty, orthogonal_penalty, pair
from .singular_values import convolution_singular_values

if TYPE_CHECKING:
    import torch
NEAR_ONE = (0.9, 1.1)  # a singular value in here counts as near 1
Convolution = nn.Conv2d | nn.ConvTranspose2d
# Of the largest singular value; below, float32 does not tell a value from 0.
_ZERO = 1e-6


@dataclass(frozen=True)
class ConvolutionIsometry:
    """What the weight of one convolution says.

    Args:
        shape: (M, C / groups, kh, kw).
        singular_values: of the operator, largest first, without those that the shape forces to 0.
        penalty: the orthogonal penalty in its exact form.
        minimum: the least that it takes on this shape.
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
        """Largest / smallest; infinite where the smallest is 0 to float32's precision."""
        if self.smallest <= _ZERO * self.largest:
            return float("inf")
        return self.largest / self.smallest

    @property
    def share_near_one(self) -> float:
        """Of the singular values, in NEAR_ONE."""
        return share_near_one(self.singular_values)

    @property
    def excess(self) -> float:
        """Penalty minus its minimum: 0 means as orthogonal as this shape can be."""
        return self.penalty - self.minimum


def share_near_one(singular_values: torch.Tensor) -> float:
    """The share of them in NEAR_ONE, 0 to 1."""
    low, high = NEAR_ONE
    return ((singular_values >= low) & (singular_values <= high)).float().mean().item()


def linear_convolutions(model: nn.Module) -> dict[str, Convolution]:
    """Every 2D convolution of `model` and transposed one, by name; a DecoupledConv2d is no linear
    map and is left out.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Convolution) and not isinstance(module, DecoupledConv2d)
    }


@torch.no_grad()
def measure_convolution(name: str, conv: Convolution, frequencies: int = 8) -> ConvolutionIsometry:
    """Singular values, penalty and its minimum of a (transposed) convolution's weight.

    Args:
        frequencies: of the output, along each axis: the operator is that on a circular image of
            frequencies x stride pixels a side.
    """
    layer = _layer(conv)
    penalty = orthogonal_penalty(conv.weight.double(), *layer).item()
    return ConvolutionIsometry(
        name,
        tuple(conv.weight.shape),
        *layer,
        possible_singular_values(conv, frequencies),
        penalty,
        minimum_orthogonal_penalty(conv.weight.shape, *layer),
    )


def possible_singular_values(conv: Convolution, frequencies: int) -> torch.Tensor:
    """Those of a (transposed) convolution that its shape does not force to 0, largest first.

    Args:
        frequencies: see `measure_convolution`.
    """
    layer = _layer(conv)
    size = [frequencies * stride for stride in layer[0]]
    # At each frequency the Gram matrix of M rows has the rank that its least penalty leaves.
    rank = conv.weight.shape[0] - 2 * minimum_orthogonal_penalty(conv.weight.shape, *layer)
    values = convolution_singular_values(conv.weight.detach(), size, *layer)
    return values[: round(rank) * frequencies**2]


def _layer(conv: Convolution) -> tuple[Pair, Pair, int]:
    return pair(conv.stride), pair(conv.dilation), conv.groups


def shifts_by_stage(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The shifts b of all SReLUs of a stage, one a channel (ISONet, figure 3)."""
    stages: dict[str, list[torch.Tensor]] = defaultdict(list)
    for name, value in _named(state_dict, "shift"):
        stages[stage_of(name)].append(value.float().flatten())
    return {stage: torch.cat(values) for stage, values in stages.items()}


def residual_scales(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The factor on each residual branch, (1,) or (C,), by the name of its block."""
    return {name: value.float() for name, value in _named(state_dict, "residual_scale")}


def _named(
    state_dict: Mapping[str, torch.Tensor], parameter: str
) -> Iterable[tuple[str, torch.Tensor]]:
    """(name of the module, value) of the parameters that are called so."""
    for name, value in state_dict.items():
        module, _, last = name.rpartition(".")
        if last == parameter:
            yield module, value.detach()


BINS = (-2.5, 0.5, 30)  # lowest, highest, number


def distribution(values: "torch.Tensor") -> dict:
    """Mean, deviation and the counts in BINS; what lies outside counts into the first or last."""
    low, high, count = BINS
    return {
        "mean": values.mean().item(),
        "deviation": values.std(correction=0).item(),
        "counts": values.float().cpu().clamp(low, high).histc(count, low, high).int().tolist(),
    }
