"""Losses, gradients and weights that are NaN or infinite: noticed, alike on all processes."""

import math
from collections.abc import Mapping

import torch
from torch import nn


class NonFiniteError(FloatingPointError):
    """Something of a training is NaN or infinite; all processes raise it alike.

    Args:
        what: "loss", "gradient" or "weights".
        reason: what the model said when it noticed, if it did.
        losses: of this process's batch, by name.
    """

    def __init__(self, what: str, reason: str = "", losses: Mapping[str, float] | None = None):
        verb = "are" if what == "weights" else "is"
        super().__init__(f"the {what} {verb} not finite" + (f" ({reason})" if reason else ""))
        self.what = what
        self.reason = reason
        self.losses = dict(losses or {})


def check_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Raise NonFiniteError where a gradient is not finite: their norm tells, in one wait.

    A seventh of the time on a CPU that the largest entry would take, which is asked where the norm
    is infinite: the square of a finite gradient can overflow.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
    gradients = [gradient for gradient in gradients if gradient is not None]
    for order in (2.0, math.inf):
        if math.isfinite(torch.nn.utils.get_total_norm(gradients, order).item()):
            return
    raise NonFiniteError("gradient")


@torch.no_grad()
def non_finite_tensors(tensors: Mapping[str, torch.Tensor | None]) -> list[str]:
    """The names of those that are not finite everywhere, in order."""
    floating = {n: x for n, x in tensors.items() if x is not None and x.is_floating_point()}
    if not floating:
        return []
    norms = torch._foreach_norm(list(floating.values()))
    finite = torch.stack([norm.isfinite() for norm in norms]).tolist()  # one wait for the device
    suspects = [name for name, good in zip(floating, finite, strict=True) if not good]
    return [name for name in suspects if not floating[name].isfinite().all()]


def weights_and_statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer of `model` by its name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
