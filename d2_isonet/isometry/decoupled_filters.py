"""Training of decoupled filters (Liu et al. 2018): projection, and the penalty on their angles.

Decoupled Networks, CVPR 2018, arXiv 1804.08071; authors' code: github.com/wy1iu/DCNets.
"""

import logging

import torch
from detectron2.engine import HookBase
from torch import nn

from d2_isonet.layers.decoupled_conv import DecoupledConv2d, filter_lengths
from d2_isonet.utils.messages import UserError

from .criterion import Convolution
from .penalty import orthogonal_penalty, orthogonal_penalty_and_gradient
from .regularizer import OrthogonalRegularizer, concatenate_weights

logger = logging.getLogger(__name__)


class WeightProjection(HookBase):
    """w <- w / |w| for every trained decoupled filter, after each `period` iterations.

    The output hardly depends on |w|, but the gradient is proportional to 1 / |w| (section 4.2;
    every 100 iterations in the authors' code). Momentum and Adam's moments do not change.

    Raises:
        UserError: period is not a positive integer.
    """

    def __init__(self, period: int = 100):
        if not (isinstance(period, int) and period > 0):
            what = f"SOLVER.WEIGHT_PROJECTION_PERIOD is {period}"
            raise UserError(what, "a projection needs a period of 1 iteration or more")
        self.period = period

    def before_train(self) -> None:
        convs = decoupled_convolutions(self.trainer.model)
        logger.info(f"{len(convs)} decoupled layers are projected every {self.period} iterations")

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self.period == 0:
            project_filters(self.trainer.model)


@torch.no_grad()
def project_filters(model: nn.Module) -> None:
    """w <- w / |w| in place for each trained decoupled filter; |w| has the eps of the forward."""
    for conv in decoupled_convolutions(model).values():
        if conv.weight.requires_grad:
            conv.weight /= filter_lengths(conv.weight)


class FilterOrthogonalRegularizer(OrthogonalRegularizer):
    """Trains loss + coeff * sum of `filter_orthogonal_penalty` over the decoupled layers.

    The gradient is added as in `OrthogonalRegularizer`. Logged at each step: `loss_filter_ortho`,
    the sum of the penalties without the coefficient, and `filter_ortho/res2`, ... of each stage.

    Args:
        coeff: 1e-5 in the code of Decoupled Networks, 2e-4 in that of SphereNet. 0 only logs.

    Raises:
        UserError: coeff is negative or not finite.
    """

    label = "filter_ortho"

    def __init__(self, coeff: float = 1e-5):
        super().__init__(coeff, form="flattened")

    def _default_convolutions(self) -> dict[str, DecoupledConv2d]:
        return decoupled_convolutions(self.trainer.model)

    def _value_and_gradient(self, convs: list[Convolution]) -> tuple[torch.Tensor, torch.Tensor]:
        weight, (*_, groups) = concatenate_weights(convs)
        return filter_orthogonal_penalty_and_gradient(weight, groups)


def decoupled_convolutions(model: nn.Module) -> dict[str, DecoupledConv2d]:
    """Every decoupled convolution of `model` by its name.

    Raises:
        UserError: the model has none.
    """
    convs = {n: m for n, m in model.named_modules() if isinstance(m, DecoupledConv2d)}
    if not convs:
        raise UserError(
            "the model has no decoupled convolution",
            "set MODEL.ISONET.CONV 'Decoupled', or both SOLVER.WEIGHT_PROJECTION_PERIOD and "
            "SOLVER.FILTER_ORTHO_COEFF to 0",
        )
    return convs


def filter_orthogonal_penalty(weight: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """1/2 ||W W^T - I||_F^2, 0-dim, summed over groups; autograd differentiates it.

    Each row of W (M, C kh kw) is a filter of weight (M, C / groups, kh, kw) divided by its length,
    as in the authors' code. 0 means that all filters are orthogonal to each other.

    Raises:
        UserError: weight is not 4-dimensional, or M is not a multiple of groups.
    """
    return orthogonal_penalty(weight / filter_lengths(weight), groups=groups, form="flattened")


@torch.no_grad()
def filter_orthogonal_penalty_and_gradient(
    weight: torch.Tensor, groups: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """`filter_orthogonal_penalty` and its gradient in closed form, without an autograd graph.

    v = w / s has the derivative (I - v v^T) / s. Arguments and errors are those of
    `filter_orthogonal_penalty`, results those of `orthogonal_penalty_and_gradient`.
    """
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    lengths = filter_lengths(weight)
    filters = weight / lengths
    value, gradient = orthogonal_penalty_and_gradient(filters, groups=groups, form="flattened")
    along = (gradient * filters).sum((1, 2, 3), keepdim=True)
    return value, (gradient - along * filters) / lengths
