"""Residual blocks of ResNet, ISONet, R-ISONet and their relatives, by options.

With norm="BN" and activation="ReLU" they equal detectron2's blocks, parameter names included.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from detectron2.layers import CNNBlockBase
from torch import nn

from d2_isonet.layers.activation import get_activation
from d2_isonet.layers.convolution import (
    Activation,
    Convolution,
    Norm,
    get_conv,
    make_convolution,
    needs_bias,
    residual_scale_parameter,
    scaled_convolution,
)
from d2_isonet.layers.weight_init import get_fill


class ISONetBlockBase(CNNBlockBase):
    """y = activation(shortcut(x) + residual_scale * branch(x)); a subclass defines the branch.

    Args:
        norm: detectron2's norm after every convolution; "" for none.
        activation: see `get_activation`.
        shortcut: False makes a plain block, y = activation(residual(x)) (ISONet, Vanilla). The
            shortcut is the identity, or a 1x1 projection if channels or stride change.
        residual_scale: first value of the learned scale, None for none.
        residual_scale_shape: see `residual_scale_parameter`.
        init: see `get_fill`. `make_isonet_stage` passes the number of branches to "fixup"; a block
            built alone counts as the only branch.
        conv: see `get_conv`; for all convolutions except the projection.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        norm: Norm = "",
        activation: Activation = "SReLU",
        shortcut: bool = True,
        residual_scale: float | None = 0.0,
        residual_scale_shape: str = "block",
        init: str | Callable[..., None] = "delta",
        conv: Convolution = "Conv2d",
    ):
        super().__init__(in_channels, out_channels, stride)
        self._fill = get_fill(init)
        options: dict[str, Any] = {"norm": norm, "activation": activation, "conv": conv}
        bias = needs_bias(**options)
        self._conv: Any = functools.partial(make_convolution, bias=bias, **options)
        self.shortcut: nn.Module | None = None
        if shortcut:
            self.shortcut = nn.Identity()
            if in_channels != out_channels or stride != 1:
                bias = needs_bias(norm, activation)  # also beside decoupled convolutions
                projection = make_convolution(
                    in_channels, out_channels, 1, stride=stride, norm=norm, bias=bias
                )
                self._fill(projection)
                self.shortcut = projection
        self.residual_scale = residual_scale_parameter(
            residual_scale, residual_scale_shape, out_channels
        )
        # True if nothing stands between the last convolution and the scale.
        self._scale_in_weight = not norm and get_conv(conv) is get_conv("Conv2d")
        self.activation = get_activation(activation, out_channels)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """residual_scale * branch(x), (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        raise NotImplementedError

    def _scaled(self, out: torch.Tensor) -> torch.Tensor:
        if self.residual_scale is None:
            return out
        # .to: no promotion to float32 under AMP
        return out * self.residual_scale.to(out.dtype).view(-1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.residual(x)
        if self.shortcut is not None:
            out += self.shortcut(x)  # in place: the backward of what made `out` does not read it
        return self.activation(out)


class ISONetBasicBlock(ISONetBlockBase):
    """branch(x) = conv3x3(activation(conv3x3/stride(x))), for depths 18 and 34.

    A dilation applies to both 3x3 convolutions, so that a dilated res5 keeps the receptive field
    of the strided one (detectron2 does the same to bottlenecks and cannot dilate basic blocks).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1, **options
    ):
        super().__init__(in_channels, out_channels, stride=stride, **options)
        self.conv1 = self._conv(in_channels, out_channels, 3, stride=stride, dilation=dilation)
        self.conv2 = self._conv(out_channels, out_channels, 3, dilation=dilation, activation=None)
        self._fill(self.conv1, self.conv2)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        scale = self.residual_scale
        if scale is not None and self._scale_in_weight and not torch.jit.is_scripting():
            return scaled_convolution(self.conv2, x, scale)
        return self._scaled(self.conv2(x))


def bottleneck_strides(stride: int, stride_in_1x1: bool) -> tuple[int, int]:
    """Strides of the first 1x1 and of the 3x3 convolution."""
    return (stride, 1) if stride_in_1x1 else (1, stride)


class ISONetBottleneckBlock(ISONetBlockBase):
    """branch(x) = conv1x1(activation(conv3x3/stride(activation(conv1x1(x))))), from depth 50.

    The stride is on the 3x3 as in the authors' code; stride_in_1x1 moves it to the first 1x1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        stride_in_1x1: bool = False,
        dilation: int = 1,
        **options,
    ):
        super().__init__(in_channels, out_channels, stride=stride, **options)
        width, (stride1, stride2) = bottleneck_channels, bottleneck_strides(stride, stride_in_1x1)
        self.conv1 = self._conv(in_channels, width, 1, stride=stride1)
        self.conv2 = self._conv(
            width, width, 3, stride=stride2, dilation=dilation, groups=num_groups
        )
        self.conv3 = self._conv(width, out_channels, 1, activation=None)
        self._fill(self.conv1, self.conv2, self.conv3)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv2(self.conv1(x))
        scale = self.residual_scale
        if scale is not None and self._scale_in_weight and not torch.jit.is_scripting():
            return scaled_convolution(self.conv3, x, scale)
        return self._scaled(self.conv3(x))
