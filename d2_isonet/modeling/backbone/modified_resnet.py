"""The modified ResNet-18 of Decoupled Networks: units without projection, strided convolutions
between the stages.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase, get_norm
from torch import nn

from d2_isonet.layers.activation import get_activation
from d2_isonet.layers.convolution import get_conv
from d2_isonet.utils.messages import UserError

__all__ = ["NUM_UNITS", "ModifiedStageConv", "ModifiedStem", "ModifiedUnit", "make_modified_stage"]
NUM_UNITS = (1, 2, 3, 1)  # in res2..res5 (wy1iu/DCNets, dcnet_imagenet)
_UNIT_STD = 0.01  # of the normal distribution a unit's filters start from, there too
Activation = str | Callable[[int], nn.Module]
Convolution = str | Callable[..., nn.Conv2d]


class ModifiedStem(CNNBlockBase):
    """y = max_pool3x3/2(activation(conv7x7/2(x))), total stride 4.

    Args of this and the following blocks:
        conv: name for `get_conv`, or a constructor; no convolution has a bias, as in the authors'
            code.
        norm: detectron2's norm name; "" for none.
        activation: name for `get_activation`; a "PReLU" has slope 0 at first, as there.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        conv: Convolution = "Conv2d",
        norm: str = "",
        activation: Activation = "PReLU",
    ):
        super().__init__(in_channels, out_channels, 4)
        options: dict[str, Any] = {"conv": conv, "norm": norm, "activation": activation}
        self.conv1 = _convolution(in_channels, out_channels, 7, stride=2, **options)
        nn.init.xavier_uniform_(self.conv1.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class ModifiedStageConv(CNNBlockBase):
    """y = activation(conv3x3/stride(x)): what opens a stage, in the place of a projection."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 2, dilation: int = 1, **options
    ):
        super().__init__(in_channels, out_channels, stride)
        options.update(stride=stride, dilation=dilation)
        self.conv1 = _convolution(in_channels, out_channels, 3, **options)
        nn.init.xavier_uniform_(self.conv1.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv1(x)


class ModifiedUnit(CNNBlockBase):
    """y = x + conv3x3(activation(conv3x3(x))), with no activation after the addition."""

    def __init__(
        self,
        channels: int,
        *,
        dilation: int = 1,
        conv: Convolution = "Conv2d",
        norm: str = "",
        activation: Activation = "PReLU",
    ):
        super().__init__(channels, channels, 1)
        options: dict[str, Any] = {"conv": conv, "norm": norm, "dilation": dilation}
        self.conv1 = _convolution(channels, channels, 3, activation=activation, **options)
        self.conv2 = _convolution(channels, channels, 3, activation=None, **options)
        for layer in (self.conv1, self.conv2):
            nn.init.normal_(layer.weight, std=_UNIT_STD)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(self.conv1(x))


def make_modified_stage(
    stage: int, *, stem_out_channels: int = 128, dilation: int = 1, **options
) -> list[CNNBlockBase]:
    """The blocks of res{stage}, stage in 2..5, of widths stem_out_channels x (1, 2, 4, 8).

    Args:
        dilation: of every convolution; above 1 the stage keeps the resolution.
        options: conv, norm and activation of `ModifiedStem`.

    Raises:
        UserError: there is no such stage.
    """
    if stage not in (2, 3, 4, 5):
        raise UserError("a modified ResNet-18 has the stages res2 to res5", f"got {stage}")
    channels = stem_out_channels * 2 ** (stage - 2)
    options["dilation"] = dilation
    blocks: list[CNNBlockBase] = []
    if stage > 2:
        stride = 1 if dilation > 1 else 2
        blocks.append(ModifiedStageConv(channels // 2, channels, stride=stride, **options))
    return blocks + [ModifiedUnit(channels, **options) for _ in range(NUM_UNITS[stage - 2])]


def _convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    conv: Convolution = "Conv2d",
    norm: str = "",
    activation: Activation | None = "PReLU",
    dilation: int = 1,
    stride: int = 1,
) -> nn.Conv2d:
    """A convolution with "same" padding, then norm, then activation (None for none)."""
    if activation == "PReLU":
        activation = functools.partial(nn.PReLU, init=0.0)
    return get_conv(conv)(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        bias=False,
        norm=get_norm(norm, out_channels),
        activation=None if activation is None else get_activation(activation, out_channels),
    )
