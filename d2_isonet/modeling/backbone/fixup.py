"""Fixup residual blocks (Zhang et al. 2019): scalar biases and one scale instead of a norm."""

from collections.abc import Callable

import torch
from detectron2.layers import CNNBlockBase
from torch import nn

from d2_isonet.layers.activation import get_activation
from d2_isonet.layers.convolution import Activation, ScalarBias, make_convolution
from d2_isonet.layers.weight_init import get_fill

from .residual import bottleneck_strides


class FixupBlockBase(CNNBlockBase):
    """y = activation(shortcut(x) + residual_scale * branch(x) + b); a subclass defines the branch.

    A scalar bias precedes every convolution and every activation; the last one follows the scale.
    The last convolution starts at zero, so that a block starts as its shortcut: the identity, or a
    1x1 projection of x plus the first scalar bias, as in the authors' network for ImageNet (the
    parameter-free shortcut of their CIFAR network is not available). No convolution has a bias.

    Args:
        activation: see `get_activation`.
        residual_scale: first value of the scale; 1 in the paper.
        init: see `get_fill`. `make_isonet_stage` passes the number of branches to "fixup"; a block
            built alone counts as the only branch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        activation: Activation = "ReLU",
        residual_scale: float = 1.0,
        init: str | Callable[..., None] = "fixup",
    ):
        super().__init__(in_channels, out_channels, stride)
        self._fill = get_fill(init)
        self.bias1a = ScalarBias()
        self.shortcut = None
        if in_channels != out_channels or stride != 1:
            self.shortcut = make_convolution(in_channels, out_channels, 1, stride=stride)
            self._fill(self.shortcut)
        self.residual_scale = nn.Parameter(torch.full((1,), float(residual_scale)))
        self.activation = get_activation(activation, out_channels)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """residual_scale * branch + b after the first scalar bias, (N, C_in, H, W) -> (N, C_out,
        H / stride, W / stride).
        """
        raise NotImplementedError

    def _scaled(self, out: torch.Tensor) -> torch.Tensor:
        return out * self.residual_scale.to(out.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shifted = self.bias1a(x)
        out = self.residual(shifted)
        out = out + (x if self.shortcut is None else self.shortcut(shifted))
        return self.activation(out)


class FixupBasicBlock(FixupBlockBase):
    """branch(x) = conv3x3(activation(conv3x3/stride(x) + b) + b), for depths 18 and 34."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1, **options
    ):
        super().__init__(in_channels, out_channels, stride=stride, **options)
        self.conv1 = make_convolution(
            in_channels, out_channels, 3, stride=stride, dilation=dilation
        )
        self.bias1b = ScalarBias()
        self.activation1 = get_activation(options.get("activation", "ReLU"), out_channels)
        self.bias2a = ScalarBias()
        self.conv2 = make_convolution(out_channels, out_channels, 3, dilation=dilation)
        self.bias2b = ScalarBias()
        self._fill(self.conv1, self.conv2)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation1(self.bias1b(self.conv1(x)))
        return self.bias2b(self._scaled(self.conv2(self.bias2a(x))))


class FixupBottleneckBlock(FixupBlockBase):
    """branch(x) = conv1x1(a(conv3x3/stride(a(conv1x1(x) + b) + b) + b) + b), from depth 50.

    a is the activation, each b another scalar bias. stride_in_1x1 moves the stride to the first
    1x1.
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
        activation = options.get("activation", "ReLU")
        self.conv1 = make_convolution(in_channels, width, 1, stride=stride1)
        self.bias1b = ScalarBias()
        self.activation1 = get_activation(activation, width)
        self.bias2a = ScalarBias()
        self.conv2 = make_convolution(
            width, width, 3, stride=stride2, dilation=dilation, groups=num_groups
        )
        self.bias2b = ScalarBias()
        self.activation2 = get_activation(activation, width)
        self.bias3a = ScalarBias()
        self.conv3 = make_convolution(width, out_channels, 1)
        self.bias3b = ScalarBias()
        self._fill(self.conv1, self.conv2, self.conv3)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation1(self.bias1b(self.conv1(x)))
        x = self.activation2(self.bias2b(self.conv2(self.bias2a(x))))
        return self.bias3b(self._scaled(self.conv3(self.bias3a(x))))
