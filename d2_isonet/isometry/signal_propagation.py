"""Norms through depth: of the output of each block, and of the gradient of that output."""

import contextlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

LIMIT = 10.0  # `deviations` reports factors above LIMIT or below 1 / LIMIT


@dataclass(frozen=True)
class Signal:
    """The values y at one point of the network; the first point is its input x.

    Args:
        rms: root of the mean square of y.
        norm: |y| / |x|.
        gradient: |J^T g|, with J the Jacobian from y to the output and g random, |g| = 1.
    """

    name: str
    rms: float
    norm: float
    gradient: float


class SignalWatch(contextlib.ExitStack):
    """Inside `with`, records norms of the outputs of modules and of the gradients of these outputs.

    It changes nothing. If a module runs several times, the last run counts. After a forward pass
    `outputs[name]` is (|y|, number of entries of y). After a backward pass `gradients[name]` is the
    norm of the gradient of y. Norms are 0-dim, at least float32, on the device of y.

    Args:
        modules: name -> module; outputs that are not tensors are skipped.
    """

    def __init__(self, modules: dict[str, nn.Module]):
        super().__init__()
        self.outputs: dict[str, tuple[torch.Tensor, int]] = {}
        self.gradients: dict[str, torch.Tensor] = {}
        for name, module in modules.items():
            self.callback(module.register_forward_hook(self._recorder(name)).remove)

    def _recorder(self, name: str) -> Callable:
        def after_forward(module: nn.Module, args: tuple, output) -> None:
            if not isinstance(output, torch.Tensor):
                return
            self.outputs[name] = (norm_of(output), output.numel())
            if output.requires_grad:
                output.register_hook(after_backward)

        def after_backward(gradient: torch.Tensor) -> None:
            self.gradients[name] = norm_of(gradient)

        return after_forward


def norm_of(x: torch.Tensor) -> torch.Tensor:
    """|x| over all entries, 0-dim, at least float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vector_norm(x.detach(), dtype=dtype)


def measure_signals(
    blocks: dict[str, nn.Module],
    forward: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    seed: int = 0,
) -> list[Signal]:
    """Signals at the input and at each block, from one forward and one backward pass of an image.

    Args:
        blocks: in any order; blocks that `forward` does not run are skipped.
        forward: image -> output tensor, from which a random unit cotangent g is propagated back.
        image: (1, C, H, W), normalized.
        seed: of the cotangent.
    """
    image = image.detach().clone().requires_grad_()
    with SignalWatch(blocks) as watch, torch.enable_grad():
        output = forward(image)
        generator = torch.Generator().manual_seed(seed)
        cotangent = torch.randn(output.shape, generator=generator).to(output)
        (gradient,) = torch.autograd.grad(output, image, cotangent / norm_of(cotangent))
    size = norm_of(image)
    points = {"input": (size, image.numel()), **watch.outputs}
    gradients = {"input": norm_of(gradient), **watch.gradients}
    signals = []
    for name, (norm, entries) in points.items():
        back = gradients[name].item() if name in gradients else 0.0
        signals.append(Signal(name, (norm / entries**0.5).item(), (norm / size).item(), back))
    return signals


def deviations(signals: Sequence[Signal], limit: float = LIMIT) -> list[str]:
    """One line for each place where the signal vanishes or explodes; none in a healthy network.

    Forward, the signal is the RMS; backward, it is the norm of the gradient. Reported are a factor
    above `limit` or below 1 / limit across one block, or from the output of the first block to that
    of the last, and a number that is not finite. The first block is skipped, because pixels have
    another scale.
    """
    points = signals[1:]
    steps = [(f"in {after.name}", before, after) for before, after in itertools.pairwise(points)]
    steps += [("across the whole network", points[0], points[-1])] if len(points) > 2 else []
    lines = []
    for where, before, after in steps:
        lines += _deviation(f"forward, {where}: RMS", before.rms, after.rms, limit)
    for where, before, after in steps:
        lines += _deviation(f"backward, {where}: gradient", after.gradient, before.gradient, limit)
    return lines


def _deviation(what: str, given: float, found: float, limit: float) -> list[str]:
    if not given or not math.isfinite(given):  # reported where it began
        return []
    if found / given < 1 / limit:
        return [f"vanishes {what} {given:.3g} -> {found:.3g}"]
    return [] if found / given <= limit else [f"explodes {what} {given:.3g} -> {found:.3g}"]
