"""SReLU, and the activations by name."""

import functools
import logging
from collections.abc import Callable

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from d2_isonet.config.options import check_name
from d2_isonet.utils.messages import UserError

logger = logging.getLogger(__name__)


class _ShiftedMaximum(torch.autograd.Function):
    """max(x, b) with the gradient of relu(x - b) + b: if x == b, only b gets the gradient.

    Ties are frequent: between two delta-initialized layers every value that the first one clipped
    meets the same threshold again. (torch.maximum would split the gradient.) It saves its output,
    which the next convolution saves anyway, and no other map.
    """

    @staticmethod
    def forward(ctx, x, shift, inplace):
        y = torch.maximum(x, shift, out=x if inplace else None)
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y, shift)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        y, shift = ctx.saved_tensors
        kernel = _fused_backward(y)
        if kernel is not None:
            grad_x, grad_shift = kernel(grad, y, shift)
            return grad_x, grad_shift.view_as(shift).to(shift.dtype), None
        grad_x = y - shift  # overwritten by the gradient where it is positive, by 0 elsewhere
        torch.ops.aten.threshold_backward.grad_input(grad, grad_x, 0, grad_input=grad_x)
        if not ctx.needs_input_grad[1]:
            return grad_x, None, None
        # b gets the part that x does not get: two sums cost less than a third map
        accumulate = torch.promote_types(grad.dtype, torch.float32)
        grad_shift = grad.sum((0, 2, 3), dtype=accumulate) - grad_x.sum((0, 2, 3), dtype=accumulate)
        return grad_x, grad_shift.view_as(shift).to(shift.dtype), None


def _fused_backward(y: torch.Tensor) -> Callable | None:
    """The kernel that computes it in one pass, if it works on this GPU; else None, for eager."""
    if not y.is_cuda or y.dtype == torch.float64 or y.numel() == 0:
        return None
    return _working_kernel(y.device)


@functools.cache
def _working_kernel(device: torch.device) -> Callable | None:
    """srelu_backward after one trial: Triton may be missing, or the C compiler that it calls."""
    try:
        from .srelu_triton import srelu_backward  # late: a CPU needs no Triton

        y, grad = torch.tensor([[-1.0, 2.0], [3.0, 5.0]], device=device).view(2, 1, 1, 1, 2)
        shift = torch.full((1, 1, 1, 1), -1.0, device=device)
        grad_x, grad_shift = srelu_backward(grad, y, shift)
        if (grad_x.flatten().tolist(), grad_shift.tolist()) == ([0.0, 5.0], [3.0]):
            return srelu_backward
        problem = f"it computes {grad_x.tolist()} and {grad_shift.tolist()}"
    except Exception as error:  # a compiler may raise anything; eager always works
        problem = f"{type(error).__name__}: {error}"
    logger.warning(f"SReLU runs without its Triton kernel: equal results, but slower ({problem})")
    return None


class SReLU(nn.Module):
    """Shifted ReLU, y = max(x, b) = relu(x - b) + b with one learned b per channel (ISONet eq. 15).

    Args:
        num_channels: C of the (N, C, H, W) input.
        init: first value of b; -1 in the paper (table 3): 0 is ReLU, -infinity the identity.
        learnable: whether b is trained (table 3 (b) against (c)).
        inplace: write y over x, as nn.ReLU does; only if nothing else needs x.

    The optimizer recognizes the parameter by its name, `shift`.
    """

    def __init__(
        self, num_channels: int, init: float = -1.0, learnable: bool = True, inplace: bool = False
    ):
        super().__init__()
        self.shift = nn.Parameter(torch.full((num_channels,), float(init)), learnable)
        self.inplace = inplace

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shift = self.shift.to(x.dtype).view(1, -1, 1, 1)  # stays in half precision under AMP
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return torch.maximum(x, shift)
        if not torch.is_grad_enabled():
            return torch.maximum(x, shift, out=x if self.inplace else None)
        if torch.compiler.is_compiling():  # the compiler writes its own fused kernel
            return torch.where(x <= shift, shift, x)  # a nan stays nan
        return _ShiftedMaximum.apply(x, shift, self.inplace)

    def extra_repr(self) -> str:
        inplace = ", inplace=True" if self.inplace else ""
        return f"{self.shift.numel()}, learnable={self.shift.requires_grad}{inplace}"


# In place if the gradient needs the output only, as ReLU in detectron2's ResNet.
ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "ELU": lambda num_channels: nn.ELU(inplace=True),
    "Identity": lambda num_channels: nn.Identity(),
    "LeakyReLU": lambda num_channels: nn.LeakyReLU(inplace=True),
    "PReLU": nn.PReLU,
    "RReLU": lambda num_channels: nn.RReLU(inplace=True),
    "ReLU": lambda num_channels: nn.ReLU(inplace=True),
    "SELU": lambda num_channels: nn.SELU(inplace=True),
    "SReLU": lambda num_channels: SReLU(num_channels, inplace=True),
    "Swish": lambda num_channels: nn.SiLU(),
}


def register_activation(name: str, build: Callable[[int], nn.Module]) -> None:
    """Make `name` a legal value of MODEL.ISONET.ACTIVATION, for every network of this package.

    `build` maps the number of channels to a module, (N, C, H, W) -> (N, C, H, W); it is called once
    per layer. A name that exists raises a UserError.
    """
    if name in ACTIVATIONS:
        raise UserError(f"there is an activation {name!r} already", "choose another name")
    ACTIVATIONS[name] = build


def get_activation(activation: str | Callable[[int], nn.Module], num_channels: int) -> nn.Module:
    """The activation module for `num_channels`; a sibling of detectron2's `get_norm`.

    Args:
        activation: a name in ACTIVATIONS, or any callable from the number of channels to a
            module. The slopes are PyTorch's defaults: LeakyReLU 0.01, RReLU 1/8 to 1/3, PReLU
            learned per channel from 0.25, ELU 1. Swish is x sigmoid(x).

    Raises:
        UserError: the name is unknown.
    """
    if callable(activation):
        return activation(num_channels)
    check_name("MODEL.ISONET.ACTIVATION", activation, ACTIVATIONS)
    return ACTIVATIONS[activation](num_channels)
