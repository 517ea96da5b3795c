"""The orthogonal penalty and SReLU, each against the usual PyTorch code for the same values."""

import argparse
import itertools
import math
import types
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from detectron2.modeling import build_backbone
from detectron2.utils.events import EventStorage
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from d2_isonet import SReLU
from d2_isonet.config.loading import load_config
from d2_isonet.isometry.regularizer import OrthogonalRegularizer
from d2_isonet.modeling.stages import default_convolutions

from .measure import Comparison, compare_memory, compare_seconds, seconds_in_turn

_PENALTY_LIMIT = {"cpu": 0.30, "cuda": 0.20}
# Maps of R-ISONet-50: after the stem for 2 images of 800 x 1333, in res2 and res4 for 32 of 224.
_SHAPES = ((2, 64, 400, 672), (32, 256, 56, 56), (32, 256, 14, 14))
_FORMATS = {"": torch.contiguous_format, ", channels_last": torch.channels_last}


def compare_penalty(options: argparse.Namespace) -> Iterator[Comparison]:
    """The orthogonal penalty, value and gradient, against conv2d and its autograd.

    Rows of seconds and extra peak memory for the convolutions of R-ISONet at each depth.
    """
    for depth in options.depth:
        convs = convolutions(depth, options.device)
        sides = (regularize(convs), lambda convs=convs: penalty_by_autograd(convs).backward())
        counts = (sum(multiplications(sides[0]).values()), _multiplications_by_autograd(convs))
        note = "multiplications {:.0f} against {:.0f} billion".format(*(n / 1e9 for n in counts))
        name, limit = f"R{depth}, value and gradient", _PENALTY_LIMIT[options.device]
        yield compare_seconds(name, *sides, options, limit=limit, note=note)
        note = "promised for R50: 150 MB at most"
        yield compare_memory(f"R{depth}, extra peak memory", *sides, options, note=note)


def convolutions(depth: int, device: str) -> dict[str, nn.Conv2d]:
    """The convolutions that the hook regularizes, with random weights and zero gradients."""
    config = load_config(f"configs/imagenet/risonet{depth}.yaml", ["MODEL.DEVICE", device])
    convs = default_convolutions(build_backbone(config).to(device))
    for conv in convs.values():
        nn.init.normal_(conv.weight, std=1 / math.sqrt(conv.weight[0].numel()))
        conv.weight.grad = torch.zeros_like(conv.weight)
    return convs


def regularize(convs: dict[str, nn.Conv2d]) -> Callable[[], None]:
    """The work of the hook before each step of the optimizer."""
    optimizer = torch.optim.SGD([conv.weight for conv in convs.values()], lr=0.1)
    hook = attached_hook(optimizer, convs)
    return lambda: hook._regularize(optimizer, None)


def attached_hook(
    optimizer: torch.optim.Optimizer, convs: dict[str, nn.Conv2d]
) -> OrthogonalRegularizer:
    """The hook on the steps of `optimizer`, without a trainer."""
    hook = OrthogonalRegularizer(1e-4, convs=convs)
    hook.trainer = types.SimpleNamespace(optimizer=optimizer, iter=0, storage=EventStorage())
    hook.before_train()
    return hook


def penalty_by_autograd(convs: dict[str, nn.Conv2d]) -> torch.Tensor:
    """The weighted penalty of all convolutions, for autograd."""
    return 1e-4 * torch.stack([penalty_by_convolution(conv) for conv in convs.values()]).sum()


def penalty_by_convolution(conv: nn.Conv2d) -> torch.Tensor:
    """1/2 ||Gram - I||^2, the Gram matrix as a convolution of the kernel with itself."""
    kernel = conv.weight
    if kernel.shape[1] < kernel.shape[0]:
        kernel = kernel.transpose(0, 1)
    padding = [size - 1 for size in kernel.shape[2:]]
    gram = F.conv2d(kernel, kernel, stride=conv.stride, padding=padding)
    identity = torch.zeros_like(gram)
    middle = gram.shape[2] // 2, gram.shape[3] // 2
    identity.diagonal()[middle] = 1
    return (gram - identity).square().sum() / 2


def multiplications(function: Callable[[], object]) -> dict[str, int]:
    """Multiplications of convolutions and matrix products in `function`, counted by torch.

    The keys are names of operators, for example aten.convolution_backward.
    """

    def batched(_, left, right, **__) -> int:  # torch counts only the out-of-place variant
        return 2 * math.prod(left) * right[-1]

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: batched}) as flops:
        function()
    counts = flops.get_flop_counts().get("Global", {})
    return {str(operator): number // 2 for operator, number in counts.items()}


def _multiplications_by_autograd(convs: dict[str, nn.Conv2d]) -> int:
    """Forward, and twice as many backward; without products with the zeros of the padding."""
    total = 0
    for conv in convs.values():
        rows, columns = sorted(conv.weight.shape[:2])
        axes = [
            [k - abs(lag) for lag in range(1 - k, k, s)]
            for k, s in zip(conv.kernel_size, conv.stride, strict=True)
        ]
        total += 3 * rows * rows * columns * sum(a * b for a, b in itertools.product(*axes))
    return total


def compare_srelu(options: argparse.Namespace) -> Iterator[Comparison]:
    """SReLU, forward and backward, against relu(x - b) + b written out and against in-place ReLU.

    Rows of each shape in both memory formats.
    """
    shapes = [(2, 4, 8, 8)] if options.quick else _SHAPES
    on_gpu = options.device != "cpu"
    for shape, (suffix, memory_format) in itertools.product(shapes, _FORMATS.items()):
        x = torch.randn(shape, device=options.device).to(memory_format=memory_format)
        name = " x ".join(map(str, shape)) + suffix
        for peer, activation, limit in (
            ("relu(x - b) + b", Formula(shape[1]), None if on_gpu else 0.6),
            ("in-place ReLU", nn.ReLU(inplace=True), 1.1 if on_gpu else None),
        ):
            modules = (SReLU(shape[1], inplace=True), activation, nn.Identity())
            steps = [_step(module.to(options.device), x) for module in modules]
            *times, copies = seconds_in_turn(steps, options)
            # without the seconds to make the map and to pass it on
            seconds = [[max(taken - min(copies), 1e-9) for taken in side] for side in times]
            yield Comparison(f"{name}, {peer}", *seconds, limit=limit)


class Formula(nn.Module):
    """The authors' expression of eq. 15: relu(x - b) + b."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.shift = nn.Parameter(torch.full((1, num_channels, 1, 1), -1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x - self.shift) + self.shift


class _Source(torch.autograd.Function):
    """A new map that may be overwritten, like a convolution's output; it requires a gradient."""

    @staticmethod
    def forward(ctx, x, handle):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return None, None


def _step(activation: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    handle = torch.zeros((), requires_grad=True)
    grad = torch.randn_like(x)

    def step() -> None:
        y = activation(_Source.apply(x, handle))
        y.backward(grad)

    return step
