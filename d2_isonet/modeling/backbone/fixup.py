"""Fixup residual blocks (Zhang et al. 2019): scalar biases and one scale in place of a norm."""

from collections.abc import Callable

import torch
from detectron2.layers import CNNBlockBase, Conv2d
from torch import nn

from d2_isonet.layers.activation import get_activation
from d2_isonet.layers.convolution import ScalarBias
from d2_isonet.layers.weight_init import get_fill


class FixupBlockBase(CNNBlockBase):
    """y = activation(shortcut(x) + residual_scale * residual(x) + b); a subclass gives residual(x).

    A scalar bias stands before every convolution and every activation, after the scale the last
    one. The last convolution starts at zero, so that a block starts as its shortcut: the identity,
    or a 1x1 projection of x plus the first scalar bias, as in the authors' network for ImageNet
    (the parameter-free shortcut of theirs for CIFAR is not offered). No convolution has a bias.

    Args:
        activation: name for `get_activation`.
        residual_scale: first value of the scale; 1 in the paper.
        init: name for `get_fill`, or its result; `make_isonet_stage` tells "fixup" the number of
            branches, a block built alone counts as the only one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        activation: str | Callable[[int], nn.Module] = "ReLU",
        residual_scale: float = 1.0,
        init: str | Callable[..., None] = "fixup",
    ):
        super().__init__(in_channels, out_channels, stride)
        self._fill = get_fill(init)
        self.bias1a = ScalarBias()
        self.shortcut = None
        if in_channels != out_channels or stride != 1:
            self.shortcut = Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self._fill(self.shortcut)
        self.residual_scale = nn.Parameter(torch.full((1,), float(residual_scale)))
        self.activation = get_activation(activation, out_channels)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """The branch after its first scalar bias, (N, C_in, H, W) -> (N, C_out, H', W')."""
        raise NotImplementedError

    def last_bias(self, x: torch.Tensor) -> torch.Tensor:
        """The scalar bias after the scale."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shifted = self.bias1a(x)
        out = self.residual(shifted)
        out = self.last_bias(out * self.residual_scale.to(out.dtype))
        out = out + (x if self.shortcut is None else self.shortcut(shifted))
        return self.activation(out)


class FixupBasicBlock(FixupBlockBase):
    """residual(x) = conv3x3(activation(conv3x3/stride(x) + b) + b), for depths 18 and 34."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1, **options
    ):
        super().__init__(in_channels, out_channels, stride=stride, **options)
        same = {"kernel_size": 3, "padding": dilation, "dilation": dilation, "bias": False}
        self.conv1 = Conv2d(in_channels, out_channels, stride=stride, **same)
        self.bias1b = ScalarBias()
        self.activation1 = get_activation(options.get("activation", "ReLU"), out_channels)
        self.bias2a = ScalarBias()
        self.conv2 = Conv2d(out_channels, out_channels, **same)
        self.bias2b = ScalarBias()
        self._fill(self.conv1, self.conv2)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation1(self.bias1b(self.conv1(x)))
        return self.conv2(self.bias2a(x))

    def last_bias(self, x: torch.Tensor) -> torch.Tensor:
        return self.bias2b(x)


class FixupBottleneckBlock(FixupBlockBase):
    """residual(x) = conv1x1(a(conv3x3/stride(a(conv1x1(x) + b) + b) + b) + b), depth 50 and on.

    a is the activation, each b another scalar bias. stride_in_1x1 puts the stride on the first 1x1.
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
        activation, width = options.get("activation", "ReLU"), bottleneck_channels
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = Conv2d(in_channels, width, 1, stride=stride_1x1, bias=False)
        self.bias1b = ScalarBias()
        self.activation1 = get_activation(activation, width)
        self.bias2a = ScalarBias()
        self.conv2 = Conv2d(
            width, width, 3, stride_3x3, dilation, dilation, groups=num_groups, bias=False
        )
        self.bias2b = ScalarBias()
        self.activation2 = get_activation(activation, width)
        self.bias3a = ScalarBias()
        self.conv3 = Conv2d(width, out_channels, 1, bias=False)
        self.bias3b = ScalarBias()
        self._fill(self.conv1, self.conv2, self.conv3)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation1(self.bias1b(self.conv1(x)))
        x = self.activation2(self.bias2b(self.conv2(self.bias2a(x))))
        return self.conv3(self.bias3a(x))

    def last_bias(self, x: torch.Tensor) -> torch.Tensor:
        return self.bias3b(x)


def scalar_bias_norm(num_channels: int) -> ScalarBias:
    """A scalar bias where a norm would stand, for the stem: activation(conv(x) + b)."""
    return ScalarBias()
