"""Stem, depths and stages of the networks in detectron2's ResNet container."""

import functools
from typing import Any

import torch
from detectron2.layers import CNNBlockBase
from detectron2.modeling.backbone.resnet import ResNet
from torch import nn

from d2_isonet.layers.convolution import Activation, Convolution, Norm, make_convolution, needs_bias
from d2_isonet.layers.weight_init import NOT_FOR_STEMS, fixup_fill, get_fill

from .fixup import FixupBasicBlock, FixupBottleneckBlock
from .residual import ISONetBasicBlock, ISONetBottleneckBlock

# Blocks in res2..res5 (He et al. 2016, table 1; the authors' ISONet code has the same).
NUM_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_BLOCKS = {  # basic, bottleneck
    "residual": (ISONetBasicBlock, ISONetBottleneckBlock),
    "fixup": (FixupBasicBlock, FixupBottleneckBlock),
}


def make_isonet_stage(
    stage: int,
    depth: int,
    *,
    block: str = "residual",
    small_images: bool = False,
    stem_out_channels: int = 64,
    res2_out_channels: int = 256,
    num_groups: int = 1,
    width_per_group: int = 64,
    stride_in_1x1: bool = False,
    dilation: int = 1,
    **options,
) -> list[CNNBlockBase]:
    """The blocks of res{stage} for a network of the given depth.

    Args:
        stage: 2 to 5; to 4 for small images.
        block: "residual" or "fixup".
        small_images: three stages of n basic blocks, depth 6n + 2 (He et al. 2016, section 4.2).
        num_groups, width_per_group, stride_in_1x1: of bottlenecks only.
        options: those of `ISONetBlockBase`, or of `FixupBlockBase`.
    """
    out_channels = res2_out_channels * 2 ** (stage - 2)
    num_blocks = ((depth - 2) // 6,) * 3 if small_images else NUM_BLOCKS[depth]
    bottleneck = depth >= 50 and not small_images
    if bottleneck:
        options["bottleneck_channels"] = num_groups * width_per_group * 2 ** (stage - 2)
        options.update(num_groups=num_groups, stride_in_1x1=stride_in_1x1)
    if options.get("init", "fixup" if block == "fixup" else None) == "fixup":
        options["init"] = functools.partial(fixup_fill, num_branches=sum(num_blocks))
    return ResNet.make_stage(
        _BLOCKS[block][bottleneck],
        num_blocks[stage - 2],
        in_channels=stem_out_channels if stage == 2 else out_channels // 2,
        out_channels=out_channels,
        stride_per_block=[first_stride(stage, dilation)] + [1] * (num_blocks[stage - 2] - 1),
        dilation=dilation,
        **options,
    )


def first_stride(stage: int, dilation: int) -> int:
    """The stride of res{stage}: a stage after res2 halves the resolution unless it is dilated."""
    return 1 if stage == 2 or dilation > 1 else 2


def zero_last_norm(block: ISONetBasicBlock | ISONetBottleneckBlock) -> None:
    """Set the weight of the residual branch's last norm to 0 (Goyal et al. 2017).

    A FrozenBN stays as it is: its weight is no parameter but comes from a file.
    """
    last = block.conv3 if isinstance(block, ISONetBottleneckBlock) else block.conv2
    if isinstance(last.norm.weight, nn.Parameter):
        nn.init.zeros_(last.norm.weight)


# Options of the stem for small images (He et al. 2016, section 4.2).
SMALL_STEM: dict[str, Any] = {"kernel_size": 3, "stride": 1, "pool": False}


class ISONetStem(CNNBlockBase):
    """y = max_pool3x3/2(activation(conv7x7/2(x))), total stride 4; the pooling is optional.

    Under a delta-like init (delta, delta_orthogonal, phase_shifted_delta) and Fixup's a 7x7
    convolution keeps PyTorch's default weights, as in the authors' codes: a delta of three input
    channels would leave all but three of the outputs zero. The 3x3 convolution of SMALL_STEM is
    initialized like any other convolution, as in the authors' code.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 64,
        norm: Norm = "",
        activation: Activation = "SReLU",
        init: str = "delta",
        conv: Convolution = "Conv2d",
        *,
        kernel_size: int = 7,
        stride: int = 2,
        pool: bool = True,
    ):
        super().__init__(in_channels, out_channels, 2 * stride if pool else stride)
        options: dict[str, Any] = {"norm": norm, "activation": activation, "conv": conv}
        options["bias"] = needs_bias(**options)
        self.conv1 = make_convolution(
            in_channels, out_channels, kernel_size, stride=stride, **options
        )
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if pool else nn.Identity()
        fill = get_fill(init)
        if kernel_size != 7 or init not in NOT_FOR_STEMS:
            fill(self.conv1)
        elif self.conv1.bias is not None:
            nn.init.zeros_(self.conv1.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.conv1(x))
