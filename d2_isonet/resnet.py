"""Stem and residual blocks for detectron2's ResNet container: ResNet and (R-)ISONet by options.

With norm="BN" and activation="ReLU" they are detectron2's own, parameter names included.
"""

import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase, Conv2d, get_norm
from detectron2.modeling.backbone.resnet import ResNet
from torch import nn

from .layers import SReLU, get_activation, residual_scale_parameter
from .weight_init import get_fill

# Blocks in res2..res5 (He et al. 2016, table 1; the authors' ISONet code has the same).
NUM_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}

STAGES = ("stem", "res2", "res3", "res4", "res5")


def stage_of(name: str) -> str:
    """The stage that a dotted name belongs to; its first component where it has none.

    "roi_heads.res5.0.conv1.weight" belongs to "res5", "roi_heads.box_head.fc1" to "roi_heads".
    """
    components = name.split(".")
    return next((part for part in components if part in STAGES), components[0])


def needs_bias(norm: str, activation) -> bool:
    """A convolution has a bias only where neither a norm nor a shifted ReLU moves its output."""
    return not norm and activation not in ("SReLU", SReLU)


class ISONetStem(CNNBlockBase):
    """y = max_pool3x3/2(activation(conv7x7/2(x))), total stride 4.

    Under init="delta" the convolution keeps PyTorch's default weights, as in the authors' code:
    a delta of three input channels would leave all but three of the outputs zero.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 64,
        norm: str = "",
        activation: str = "SReLU",
        init: str = "delta",
    ):
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = Conv2d(
            in_channels,
            out_channels,
            kernel_size=7,
            stride=2,
            padding=3,
            bias=needs_bias(norm, activation),
            norm=get_norm(norm, out_channels),
            activation=get_activation(activation, out_channels),
        )
        fill = get_fill(init)
        if init != "delta":
            fill(self.conv1)
        elif self.conv1.bias is not None:
            nn.init.zeros_(self.conv1.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class ISONetBlockBase(CNNBlockBase):
    """y = activation(shortcut(x) + residual_scale * residual(x)); a subclass gives residual(x).

    Args:
        norm: detectron2's norm name after every convolution; "" for none.
        activation: name for `get_activation`.
        shortcut: False makes a plain block, y = activation(residual(x)) (ISONet, Vanilla). The
            shortcut is the identity, or a 1x1 projection where channels or stride change.
        residual_scale: first value of the learned scale, None for none. See
            `residual_scale_parameter`, which also tells residual_scale_shape.
        init: name for `get_fill`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        norm: str = "",
        activation: str = "SReLU",
        shortcut: bool = True,
        residual_scale: float | None = 0.0,
        residual_scale_shape: str = "block",
        init: str = "delta",
    ):
        super().__init__(in_channels, out_channels, stride)
        self._options = {"norm": norm, "activation": activation, "init": init}
        self.shortcut = None
        if shortcut:
            projects = in_channels != out_channels or stride != 1
            self.shortcut = (
                self._conv(in_channels, out_channels, 1, stride=stride, activate=False)
                if projects
                else nn.Identity()
            )
        self.residual_scale = residual_scale_parameter(
            residual_scale, residual_scale_shape, out_channels
        )
        self.activation = get_activation(activation, out_channels)

    def _conv(self, in_channels, out_channels, kernel_size, *, activate=True, **kwargs) -> Conv2d:
        """A k x k convolution with "same" padding, then norm, then (if activate) activation."""
        norm, activation = self._options["norm"], self._options["activation"]
        conv = Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            padding=kwargs.get("dilation", 1) * (kernel_size // 2),
            bias=needs_bias(norm, activation),
            norm=get_norm(norm, out_channels),
            activation=get_activation(activation, out_channels) if activate else None,
            **kwargs,
        )
        get_fill(self._options["init"])(conv)
        return conv

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """The residual branch, (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.residual(x)
        if self.residual_scale is not None:
            # .to: no promotion to float32 under AMP
            out = out * self.residual_scale.to(out.dtype).view(-1, 1, 1)
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return self.activation(out)


class ISONetBasicBlock(ISONetBlockBase):
    """residual(x) = conv3x3(activation(conv3x3/stride(x))), for depths 18 and 34.

    A dilation applies to both 3x3 convolutions, so that a dilated res5 keeps the receptive field
    of the strided one (detectron2 does the same to bottlenecks and cannot dilate basic blocks).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1, **options
    ):
        super().__init__(in_channels, out_channels, stride=stride, **options)
        self.conv1 = self._conv(in_channels, out_channels, 3, stride=stride, dilation=dilation)
        self.conv2 = self._conv(out_channels, out_channels, 3, dilation=dilation, activate=False)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.conv1(x))


class ISONetBottleneckBlock(ISONetBlockBase):
    """residual(x) = conv1x1(activation(conv3x3/stride(activation(conv1x1(x))))), depth 50 and on.

    The stride sits on the 3x3 as in the authors' code; stride_in_1x1 puts it on the first 1x1.
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
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        width = bottleneck_channels
        self.conv1 = self._conv(in_channels, width, 1, stride=stride_1x1)
        self.conv2 = self._conv(
            width, width, 3, stride=stride_3x3, dilation=dilation, groups=num_groups
        )
        self.conv3 = self._conv(width, out_channels, 1, activate=False)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv3(self.conv2(self.conv1(x)))


def make_isonet_stage(
    stage: int,
    depth: int,
    *,
    stem_out_channels: int = 64,
    res2_out_channels: int = 256,
    num_groups: int = 1,
    width_per_group: int = 64,
    stride_in_1x1: bool = False,
    dilation: int = 1,
    **options,
) -> list[CNNBlockBase]:
    """The blocks of res{stage}, stage in 2..5, for a network of the given depth.

    A stage after res2 halves the resolution unless it is dilated. `options` are those of
    `ISONetBlockBase`; num_groups, width_per_group and stride_in_1x1 mean bottlenecks only.
    """
    growth = 2 ** (stage - 2)
    out_channels = res2_out_channels * growth
    num_blocks = NUM_BLOCKS[depth][stage - 2]
    first_stride = 1 if stage == 2 or dilation > 1 else 2
    if depth >= 50:
        options["bottleneck_channels"] = num_groups * width_per_group * growth
        options.update(num_groups=num_groups, stride_in_1x1=stride_in_1x1)
    return ResNet.make_stage(
        ISONetBasicBlock if depth < 50 else ISONetBottleneckBlock,
        num_blocks,
        in_channels=stem_out_channels if stage == 2 else out_channels // 2,
        out_channels=out_channels,
        stride_per_block=[first_stride] + [1] * (num_blocks - 1),
        dilation=dilation,
        **options,
    )
