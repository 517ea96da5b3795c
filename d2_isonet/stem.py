"""The stems: 7x7 with pooling for ImageNet and detection, 3x3 for images of about 32 pixels."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase, get_norm
from torch import nn

from d2_isonet.layers.activation import get_activation
from d2_isonet.layers.convolution import get_conv, needs_bias
from d2_isonet.layers.weight_init import NOT_FOR_STEMS, get_fill


class ISONetStem(CNNBlockBase):
    """y = max_pool3x3/2(activation(conv7x7/2(x))), total stride 4.

    Under a delta-like init (delta, delta_orthogonal, phase_shifted_delta) and Fixup's the
    convolution keeps PyTorch's default weights, as in the authors' codes: a delta of three input
    channels would leave all but three of the outputs zero.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 64,
        norm: str | Callable[[int], nn.Module] = "",
        activation: str | Callable[[int], nn.Module] = "SReLU",
        init: str = "delta",
        conv: str | Callable[..., nn.Conv2d] = "Conv2d",
    ):
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = get_conv(conv)(
            in_channels,
            out_channels,
            kernel_size=7,
            stride=2,
            padding=3,
            bias=needs_bias(norm, activation, conv),
            norm=get_norm(norm, out_channels),
            activation=get_activation(activation, out_channels),
        )
        fill = get_fill(init)
        if init not in NOT_FOR_STEMS:
            fill(self.conv1)
        elif self.conv1.bias is not None:
            nn.init.zeros_(self.conv1.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class ISONetSmallStem(CNNBlockBase):
    """y = activation(conv3x3(x)), stride 1 (He et al. 2016, section 4.2).

    It is initialized like any other convolution, as in the authors' code, whose exception is the
    7x7 alone.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 16,
        norm: str | Callable[[int], nn.Module] = "",
        activation: str | Callable[[int], nn.Module] = "SReLU",
        init: str = "delta",
        conv: str | Callable[..., nn.Conv2d] = "Conv2d",
    ):
        super().__init__(in_channels, out_channels, 1)
        self.conv1 = get_conv(conv)(
            in_channels,
            out_channels,
            kernel_size=3,
            padding=1,
            bias=needs_bias(norm, activation, conv),
            norm=get_norm(norm, out_channels),
            activation=get_activation(activation, out_channels),
        )
        get_fill(init)(self.conv1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv1(x)
