"""Inference with SReLU's shifts folded into biases, and each convolution with what follows it.

y = max(x, b) = z + b with z = relu(x - b): -b joins the bias of the convolution before, and W b
joins the bias of a 1x1 convolution after, because W (z + b) = W z + W b. If padding stands between
(zeros of y are not zeros of z), the maximum stays.
"""

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone.resnet import ResNet
from torch import nn

from d2_isonet.layers.activation import SReLU
from d2_isonet.modeling.backbone.residual import ISONetBasicBlock, ISONetBottleneckBlock
from d2_isonet.modeling.backbone.resnet import ISONetStem
from d2_isonet.utils.messages import UserError

from .stages import res5_of, trunk_of

Offset = torch.Tensor | None  # what must be added to an output, (C,); None for nothing


def fuse_for_inference(model: nn.Module) -> nn.Module:
    """Replace the R-ISONet (or ISONet) backbone of `model`, and C4's res5, by fused ones.

    It returns `model`: the same function except for rounding, for inference only.

    Raises:
        UserError: the network is no bottleneck or basic-block network with SReLU and no norm.
    """
    res5 = res5_of(model)
    if isinstance(res5, nn.Sequential):
        model.set_submodule("roi_heads.res5", FusedBlocks(list(res5)))
    prefix, trunk = trunk_of(model)
    model.set_submodule(prefix.removesuffix("."), FusedBackbone(trunk))
    return model


class FusedBackbone(Backbone):
    """The features of `backbone`, (N, 3, H, W) -> {name: (N, C, H / stride, W / stride)}."""

    def __init__(self, backbone: ResNet):
        super().__init__()
        if not isinstance(backbone, ResNet) or type(backbone.stem) is not ISONetStem:
            raise UserError("only a ResNet with ISONetStem can be fused")
        self._shapes = backbone.output_shape()
        # A padded convolution needs its input unchanged.
        first_is_padded = isinstance(backbone.stages[0][0], ISONetBasicBlock)
        self.stem = _FusedStem(backbone.stem, "stem" in self._shapes or first_is_padded)
        self.stages, offset = nn.ModuleDict(), self.stem.offset
        for name, stage in zip(backbone.stage_names, backbone.stages, strict=True):
            self.stages[name] = blocks = FusedBlocks(list(stage), offset, name in self._shapes)
            offset = blocks.offset

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.stem(x)
        features = {"stem": x}
        for name, stage in self.stages.items():
            features[name] = x = stage(x)
        return {name: features[name] for name in self._shapes}

    def output_shape(self) -> dict:
        return self._shapes


class FusedBlocks(nn.Module):
    """Blocks in series; `offset` is that of the output."""

    def __init__(self, blocks: list[nn.Module], offset: Offset = None, emitted: bool = True):
        super().__init__()
        self.blocks = nn.ModuleList()
        for number, block in enumerate(blocks, 1):
            fused = _fuse_block(block, offset, emitted and number == len(blocks))
            self.blocks.append(fused)
            offset = fused.offset
        self.offset = offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class FusedConvolution(nn.Module):
    """relu(conv(x) + bias + other); bias, other and relu are optional.

    Args:
        weight: instead of that of `conv`.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(
        self, conv: Conv2d, bias: Offset = None, relu: bool = False, weight: Offset = None
    ):
        super().__init__()
        weight = (conv.weight if weight is None else weight).detach()
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
        self.relu = relu
        self._packed: torch.Tensor | None = None  # the weight in the fused kernel's format

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            x: (N, C_in, H, W).
            other: (N, C_out, H', W'), added before the relu.
        """
        if _has_fused_kernels(x):
            return self._in_one_kernel(x, other)
        y = F.conv2d(x, self.weight, self.bias, *self.geometry)
        if other is not None:
            y += other
        return y.relu_() if self.relu else y

    def _in_one_kernel(self, x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
        stride, padding, dilation, groups = self.geometry
        geometry = (padding, stride, dilation, groups)
        after = "relu" if self.relu else None
        x = x.contiguous(memory_format=torch.channels_last)
        if self._packed is None:
            pack = torch.ops.mkldnn._reorder_convolution_weight
            self._packed = pack(self.weight, *geometry, list(x.shape))
        kernel, weight = torch.ops.mkldnn._convolution_pointwise, self._packed
        if other is None:
            return kernel(x, weight, self.bias, *geometry, after or "none", [], "")
        other = other.contiguous(memory_format=torch.channels_last)
        return kernel.binary(x, other, weight, self.bias, *geometry, "add", 1.0, after, [], None)


def _has_fused_kernels(x: torch.Tensor) -> bool:
    fits = x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0
    recorded = x.requires_grad or torch.jit.is_tracing() or torch.compiler.is_compiling()
    return fits and not recorded and torch.backends.mkldnn.is_available()


class _Offset(nn.Module):
    """x + b, in place: restores a folded shift for modules that need it."""

    shift: torch.Tensor

    def __init__(self, shift: torch.Tensor):
        super().__init__()
        self.register_buffer("shift", shift.detach().view(1, -1, 1, 1).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add_(self.shift)


class _Shift(_Offset):
    """max(x, b), in place, for a b that cannot be folded."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # ONNX has no `out=` of a trace
        keeps_x = x.requires_grad or torch.jit.is_tracing()
        return torch.maximum(x, self.shift, out=None if keeps_x else x)


class _FusedStem(nn.Module):
    """pool(relu(conv(x) - b)); a maximum and a shift may change places."""

    def __init__(self, stem: ISONetStem, emitted: bool):
        super().__init__()
        conv = _foldable(stem.conv1)
        shift = conv.activation.shift.detach()
        self.conv1 = FusedConvolution(conv, -shift, relu=True)
        self.pool = stem.pool
        self.add_offset = _Offset(shift) if emitted else nn.Identity()
        self.offset = None if emitted else shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.add_offset(self.pool(self.conv1(x)))


class _FusedBottleneck(nn.Module):
    """Two shifts become biases; the shift before the padded 3x3 stays a maximum."""

    def __init__(
        self, block: ISONetBottleneckBlock, activation: SReLU, offset: Offset, emitted: bool
    ):
        super().__init__()
        conv1, conv2, conv3 = map(_foldable, (block.conv1, block.conv2, block.conv3))
        shift2, shift = conv2.activation.shift.detach(), activation.shift.detach()
        weight3 = _scaled_weight(conv3, block.residual_scale)
        self.conv1 = FusedConvolution(conv1, _response(conv1.weight, offset))
        self.shift1 = _Shift(conv1.activation.shift)
        self.conv2 = FusedConvolution(conv2, -shift2, relu=True)
        self.shortcut, constant = _fuse_shortcut(block.shortcut, offset)
        bias = weight3.detach().flatten(1) @ shift2 - shift
        bias = bias if constant is None else bias + constant
        self.conv3 = FusedConvolution(conv3, bias, relu=True, weight=weight3)
        self.add_offset = _Offset(shift) if emitted else nn.Identity()
        self.offset = None if emitted else shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv2(self.shift1(self.conv1(x)))
        out = self.conv3(out, None if self.shortcut is None else self.shortcut(x))
        return self.add_offset(out)


class _FusedBasic(nn.Module):
    """Both shifts stay, because every convolution is padded; the addition joins the convolution."""

    offset = None

    def __init__(self, block: ISONetBasicBlock, activation: SReLU):
        super().__init__()
        conv1, conv2 = map(_foldable, (block.conv1, block.conv2))
        self.conv1 = FusedConvolution(conv1)
        self.shift1 = _Shift(conv1.activation.shift)
        self.shortcut, _ = _fuse_shortcut(block.shortcut, None)
        self.conv2 = FusedConvolution(conv2, weight=_scaled_weight(conv2, block.residual_scale))
        self.shift = _Shift(activation.shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.shift1(self.conv1(x))
        return self.shift(self.conv2(out, None if self.shortcut is None else self.shortcut(x)))


def _fuse_block(block: nn.Module, offset: Offset, emitted: bool) -> Any:
    activation = getattr(block, "activation", None)
    if isinstance(activation, SReLU):
        if type(block) is ISONetBasicBlock:
            return _FusedBasic(block, activation)
        if type(block) is ISONetBottleneckBlock:
            return _FusedBottleneck(block, activation, offset, emitted)
    what = "only blocks of ISONet and R-ISONet with SReLU and no norm can be fused"
    raise UserError(what, f"got {block}")


def _fuse_shortcut(shortcut: nn.Module | None, offset: Offset) -> tuple[nn.Module | None, Offset]:
    """The shortcut, and its response to the offset of its input."""
    if shortcut is None or isinstance(shortcut, nn.Identity):
        return shortcut, None if shortcut is None else offset
    conv = _foldable(shortcut)
    return FusedConvolution(conv), _response(conv.weight, offset)


def _foldable(conv: nn.Module) -> Conv2d:
    plain = type(conv) is Conv2d and conv.norm is None and conv.bias is None
    if not plain or not isinstance(conv.activation, SReLU | None):
        what = "only convolutions without norm and bias, before an SReLU or nothing, can be fused"
        raise UserError(what, f"got {conv}")
    return conv


def _scaled_weight(conv: Conv2d, scale: torch.Tensor | None) -> torch.Tensor:
    return conv.weight if scale is None else conv.weight * scale.view(-1, 1, 1, 1)


def _response(weight: torch.Tensor, offset: Offset) -> Offset:
    """The output of a 1x1 convolution for a constant image, (M,)."""
    return None if offset is None else weight.detach().flatten(1) @ offset
