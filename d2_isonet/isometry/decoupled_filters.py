"""What training does to decoupled filters: their projection and the penalty on their angles."""

import logging

import torch
from detectron2.engine import HookBase
from torch import nn

from d2_isonet.layers.decoupled_conv import DecoupledConv2d, filter_lengths
from d2_isonet.utils.messages import UserError

from .penalty import orthogonal_penalty, orthogonal_penalty_and_gradient
from .regularizer import Convolution, OrthogonalRegularizer, side_by_side

logger = logging.getLogger(__name__)
__all__ = [
    "FilterOrthogonalRegularizer",
    "WeightProjection",
    "decoupled_convolutions",
    "filter_orthogonal_penalty",
    "filter_orthogonal_penalty_and_gradient",
]


class WeightProjection(HookBase):
    """Divides every trained decoupled filter by its length after each `period` iterations.

    The layer hardly sees the length, but the gradient shrinks with it (Liu et al., CVPR 2018,
    section 4.2; every 100 iterations in the authors' code). Momentum and Adam's moments stay.
    """

    def __init__(self, period: int = 100):
        """
        Raises:
            UserError: period is not a positive whole number.
        """
        if not (isinstance(period, int) and period > 0):
            raise UserError(
                f"SOLVER.WEIGHT_PROJECTION_PERIOD is {period}",
                "a projection needs a period of 1 iteration or more",
            )
        self.period = period

    def before_train(self) -> None:
        convs = decoupled_convolutions(self.trainer.model)
        logger.info(f"{len(convs)} decoupled layers are projected every {self.period} iterations")

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self.period == 0:
            project_filters(self.trainer.model)


@torch.no_grad()
def project_filters(model: nn.Module) -> None:
    """w <- w / |w| in place, with the forward's eps, for each decoupled filter that is trained."""
    for conv in decoupled_convolutions(model).values():
        if conv.weight.requires_grad:
            conv.weight /= filter_lengths(conv.weight)


class FilterOrthogonalRegularizer(OrthogonalRegularizer):
    """Trains loss + coeff * sum of `filter_orthogonal_penalty` over the decoupled layers.

    How and when the gradient is added is told in `OrthogonalRegularizer`. Logged at each step:
    `loss_filter_ortho`, the sum of the penalties, not multiplied by coeff, and each stage's share.
    """

    label = "filter_ortho"

    def __init__(self, coeff: float = 1e-5):
        """
        Args:
            coeff: 1e-5 in the code of Decoupled Networks, 2e-4 in that of SphereNet.

        Raises:
            UserError: coeff is negative or not finite.
        """
        super().__init__(coeff, form="flattened")

    def _default_convolutions(self) -> dict[str, DecoupledConv2d]:
        return decoupled_convolutions(self.trainer.model)

    def _value_and_gradient(self, convs: list[Convolution]) -> tuple[torch.Tensor, torch.Tensor]:
        weight, (*_, groups) = side_by_side(convs)
        return filter_orthogonal_penalty_and_gradient(weight, groups)


def decoupled_convolutions(model: nn.Module) -> dict[str, DecoupledConv2d]:
    """Every decoupled convolution of `model` by its name.

    Raises:
        UserError: there is none.
    """
    convs = {n: m for n, m in model.named_modules() if isinstance(m, DecoupledConv2d)}
    if not convs:
        raise UserError(
            "the model has no decoupled convolution: set MODEL.ISONET.CONV 'Decoupled', or both "
            "SOLVER.WEIGHT_PROJECTION_PERIOD and SOLVER.FILTER_ORTHO_COEFF to 0"
        )
    return convs


def filter_orthogonal_penalty(weight: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """1/2 ||W W^T - I||_F^2 of the filters, each divided by its length: differentiable, 0-dim.

    As in the authors' code (wy1iu/DCNets): W has a normalized filter in each of its M rows, and 0
    means that they all stand at right angles. With groups it is the sum over them.

    Args:
        weight: (M, C / groups, kh, kw).
    """
    return orthogonal_penalty(weight / filter_lengths(weight), groups=groups, form="flattened")


@torch.no_grad()
def filter_orthogonal_penalty_and_gradient(
    weight: torch.Tensor, groups: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """`filter_orthogonal_penalty` and its gradient in closed form, without an autograd graph.

    v = w / s has the derivative (I - v v^T) / s. The gradient has the dtype of the weight or
    float32, whichever is wider.
    """
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    lengths = filter_lengths(weight)
    filters = weight / lengths
    value, gradient = orthogonal_penalty_and_gradient(filters, groups=groups, form="flattened")
    along = (gradient * filters).sum((1, 2, 3), keepdim=True)
    return value, (gradient - along * filters) / lengths
