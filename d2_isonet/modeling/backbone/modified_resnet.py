"""The modified ResNet-18 of Decoupled Networks: no projections, a strided convolution before each
stage.
"""

import functools

import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase
from torch import nn

from d2_isonet.layers.convolution import Activation, make_convolution
from d2_isonet.utils.messages import UserError

from .resnet import first_stride

NUM_UNITS = (1, 2, 3, 1)  # in res2..res5 (wy1iu/DCNets, dcnet_imagenet)
_UNIT_STD = 0.01  # of the normal distribution that initializes a unit's filters, there too


class ModifiedStem(CNNBlockBase):
    """y = max_pool3x3/2(activation(conv7x7/2(x))), total stride 4.

    Options of this class and of the blocks below:
        conv: see `get_conv`; "Conv2d" by default. No convolution has a bias, as in the authors'
            code.
        norm: detectron2's norm; "" for none, the default.
        activation: see `get_activation`; "PReLU" by default. Its first slope is 0, as there.
    """

    def __init__(self, in_channels: int, out_channels: int, **options):
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _convolution(in_channels, out_channels, 7, stride=2, **options)
        nn.init.xavier_uniform_(self.conv1.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class ModifiedStageConv(CNNBlockBase):
    """y = activation(conv3x3/stride(x)), the first block of a stage; it replaces a projection."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 2, **options):
        super().__init__(in_channels, out_channels, stride)
        self.conv1 = _convolution(in_channels, out_channels, 3, stride=stride, **options)
        nn.init.xavier_uniform_(self.conv1.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv1(x)


class ModifiedUnit(CNNBlockBase):
    """y = x + conv3x3(activation(conv3x3(x))), with no activation after the addition."""

    def __init__(self, channels: int, **options):
        super().__init__(channels, channels, 1)
        self.conv1 = _convolution(channels, channels, 3, **options)
        self.conv2 = _convolution(channels, channels, 3, **options | {"activation": None})
        for layer in (self.conv1, self.conv2):
            nn.init.normal_(layer.weight, std=_UNIT_STD)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(self.conv1(x))


def make_modified_stage(
    stage: int, *, stem_out_channels: int = 128, dilation: int = 1, **options
) -> list[CNNBlockBase]:
    """The blocks of res{stage}, stage 2 to 5, of width stem_out_channels * 2^(stage - 2).

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
        stride = first_stride(stage, dilation)
        blocks.append(ModifiedStageConv(channels // 2, channels, stride=stride, **options))
    return blocks + [ModifiedUnit(channels, **options) for _ in range(NUM_UNITS[stage - 2])]


def _convolution(*sizes: int, activation: Activation | None = "PReLU", **options) -> nn.Conv2d:
    if activation == "PReLU":
        activation = functools.partial(nn.PReLU, init=0.0)
    return make_convolution(*sizes, activation=activation, **options)
