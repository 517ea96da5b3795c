"""The orthogonal penalty, value and gradient, against conv2d and its autograd."""

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

from d2_isonet.config.loading import load_config
from d2_isonet.isometry.regularizer import OrthogonalRegularizer
from d2_isonet.modeling.stages import default_convolutions

from .measure import Comparison, peak_megabytes, seconds_in_turn

_LIMIT = {"cpu": 0.30, "cuda": 0.20}


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """Seconds and extra peak memory for the convolutions of R-ISONet at each depth."""
    for depth in options.depth:
        convs = convolutions(depth, options.device)
        ours, peer = regularize(convs), _peer(convs)
        billions = (multiplications(ours) / 1e9, _peer_multiplications(convs) / 1e9)
        yield Comparison(
            f"R{depth}, value and gradient",
            *seconds_in_turn(ours, peer, options.repetitions, options.device),
            limit=_LIMIT[options.device],
            note="multiplications {:.0f} against {:.0f} billion".format(*billions),
        )
        yield Comparison(
            f"R{depth}, extra peak memory",
            [peak_megabytes(ours, options.device)],
            [peak_megabytes(peer, options.device)],
            unit="MB",
            note="promised for R50: 150 MB at most",
        )


def convolutions(depth: int, device: str) -> dict[str, nn.Conv2d]:
    """Those of R-ISONet that the hook regularizes, with gradients to add to, a little off delta."""
    config = load_config(f"configs/imagenet/risonet{depth}.yaml", ["MODEL.DEVICE", device])
    backbone = build_backbone(config).to(device)
    convs = default_convolutions(backbone)
    for conv in convs.values():
        nn.init.normal_(conv.weight, std=1 / math.sqrt(conv.weight[0].numel()))
        conv.weight.grad = torch.zeros_like(conv.weight)
    return convs


def regularize(convs: dict[str, nn.Conv2d]) -> Callable[[], None]:
    """What the hook does before each step of the optimizer."""
    optimizer = torch.optim.SGD([conv.weight for conv in convs.values()], lr=0.1)
    hook = attached_hook(optimizer, convs)
    return lambda: hook._regularize(optimizer)


def attached_hook(
    optimizer: torch.optim.Optimizer, convs: dict[str, nn.Conv2d]
) -> OrthogonalRegularizer:
    """The hook on steps of `optimizer`, without a trainer around them."""
    hook = OrthogonalRegularizer(1e-4, convs=convs)
    hook.trainer = types.SimpleNamespace(optimizer=optimizer, iter=0, storage=EventStorage())
    hook.before_train()
    return hook


def _peer(convs: dict[str, nn.Conv2d]) -> Callable[[], None]:
    def penalty_of_all() -> None:
        penalties = [penalty_by_convolution(conv) for conv in convs.values()]
        (1e-4 * torch.stack(penalties).sum()).backward()

    return penalty_of_all


def penalty_by_convolution(conv: nn.Conv2d) -> torch.Tensor:
    """1/2 ||Gram - I||^2 with the Gram as a convolution of the kernel with itself."""
    kernel = conv.weight
    if kernel.shape[1] < kernel.shape[0]:
        kernel = kernel.transpose(0, 1)
    padding = [size - 1 for size in kernel.shape[2:]]
    gram = F.conv2d(kernel, kernel, stride=conv.stride, padding=padding)
    identity = torch.zeros_like(gram)
    middle = gram.shape[2] // 2, gram.shape[3] // 2
    identity.diagonal()[middle] = 1
    return (gram - identity).square().sum() / 2


def multiplications(function: Callable[[], None]) -> int:
    """Of its convolutions and matrix products, as torch counts them."""
    return sum(multiplications_by_operator(function).values())


def multiplications_by_operator(function: Callable[[], None]) -> dict[str, int]:
    """The same, by the operator's name, aten.convolution_backward for example."""

    def batched(_, left, right, **__) -> int:  # torch counts it out of place only
        return 2 * math.prod(left) * right[-1]

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: batched}) as flops:
        function()
    counts = flops.get_flop_counts().get("Global", {})
    return {str(operator): number // 2 for operator, number in counts.items()}


def _peer_multiplications(convs: dict[str, nn.Conv2d]) -> int:
    """Forward and twice as many backward; products with the zeros of the padding left out."""
    total = 0
    for conv in convs.values():
        rows, columns = sorted(conv.weight.shape[:2])
        axes = [
            [k - abs(lag) for lag in range(1 - k, k, s)]
            for k, s in zip(conv.kernel_size, conv.stride, strict=True)
        ]
        total += 3 * rows * rows * columns * sum(a * b for a, b in itertools.product(*axes))
    return total
