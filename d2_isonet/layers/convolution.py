"""Convolutions, their scalar bias, and their learned scale."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, get_norm
from torch import nn
from torch.autograd.function import once_differentiable

from d2_isonet.config.options import check_name

from .activation import SReLU, get_activation

Activation = str | Callable[[int], nn.Module]  # for get_activation
Convolution = str | Callable[..., nn.Conv2d]  # for get_conv
Norm = str | Callable[[int], nn.Module]  # for detectron2's get_norm


class ScalarBias(nn.Module):
    """y = x + b with one learned b for all channels (Fixup, Zhang et al. 2019, section 3).

    The optimizer recognizes the parameter by its name, `scalar_bias`.
    """

    def __init__(self):
        super().__init__()
        self.scalar_bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scalar_bias.to(x.dtype)  # no promotion to float32 under AMP


def get_conv(conv: Convolution) -> Callable[..., nn.Conv2d]:
    """The constructor of convolutions; a sibling of detectron2's `get_norm`.

    `conv` is "Conv2d" (detectron2's), or any callable that takes the same arguments. Another name
    raises a UserError.
    """
    if callable(conv):
        return conv
    check_name("conv", conv, ["Conv2d"])
    return Conv2d


def make_convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    conv: Convolution = "Conv2d",
    norm: Norm = "",
    activation: Activation | None = None,
    bias: bool = False,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """A k x k convolution with "same" padding, then the norm, then the activation (None: none)."""
    return get_conv(conv)(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=groups,
        bias=bias,
        norm=get_norm(norm, out_channels),
        activation=None if activation is None else get_activation(activation, out_channels),
    )


def needs_bias(norm: Norm, activation: Activation, conv: Convolution = "Conv2d") -> bool:
    """Whether a convolution has a bias: only without a norm and a shifted ReLU, which move its
    output themselves, and only if it is an ordinary one (a decoupled convolution has none).
    """
    shifted = activation == "SReLU" or getattr(activation, "func", activation) is SReLU
    return not norm and not shifted and get_conv(conv) is Conv2d


def residual_scale_parameter(
    init: float | None, shape: str, num_channels: int
) -> nn.Parameter | None:
    """The learned factor on a residual branch, shape (1,) or (C,); None if `init` is None.

    Args:
        init: first value; 0 in R-ISONet, so that a block starts as its shortcut.
        shape: "block", one scalar as in the authors' code, or "channel", one per channel, as the
            paper's "shared within each channel" can be read (ISONet section 2.4).

    Raises:
        UserError: the shape is neither.
    """
    sizes = {"block": 1, "channel": num_channels}
    check_name("MODEL.ISONET.RESIDUAL_SCALE_SHAPE", shape, sizes)
    return None if init is None else nn.Parameter(torch.full((sizes[shape],), float(init)))


class _ScaledConvolution(torch.autograd.Function):
    """conv(x, scale * weight) that saves x and weight for backward, not scale * weight."""

    @staticmethod
    def forward(ctx, x, weight, scale, geometry):
        ctx.save_for_backward(x, weight, scale)
        ctx.geometry = geometry
        return F.conv2d(x, _times(weight, scale, x.dtype), None, *geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        need_x, need_weight, need_scale, _ = ctx.needs_input_grad
        scaled = _times(weight, scale, x.dtype)
        geometry = (stride, padding, dilation, False, [0, 0], groups)
        wanted = [need_x, need_weight or need_scale, False]
        grad_x, grad_scaled, _ = torch.ops.aten.convolution_backward(
            grad, x, scaled, None, *geometry, wanted
        )
        grad_weight = grad_scale = None
        if need_scale:
            grad_scale = (grad_scaled * weight).sum((1, 2, 3)).sum_to_size(scale.shape)
        if need_weight:
            grad_weight = _times(grad_scaled, scale, weight.dtype)
        return grad_x, grad_weight, grad_scale, None


def _times(weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return (weight * scale.view(-1, 1, 1, 1)).to(dtype)


def scaled_convolution(conv: Conv2d, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """scale * conv(x), the factor in the weight, (N, C_in, H, W) -> (N, C_out, H', W').

    It costs no pass over activations, and the gradient of the scale (the weight's gradient times
    the weight) needs no saved activation.

    Args:
        conv: a convolution without norm and activation.
        scale: (1,) or (C_out,), see `residual_scale_parameter`.
    """
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
    x = x.to(convolution_dtype(x))
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or not torch.is_grad_enabled():
        y = F.conv2d(x, _times(conv.weight, scale, x.dtype), None, *geometry)
    else:
        y = _ScaledConvolution.apply(x, conv.weight, scale, geometry)
    return y if conv.bias is None else y + (conv.bias * scale).to(y.dtype).view(-1, 1, 1)


def convolution_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype of a convolution's output: autocast's under autocast, except for float64."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype
