"""One optimizer step from a batch taken in parts, ended alike on all processes where it fails."""

import contextlib
import functools
import time
from collections.abc import Callable

import torch
from detectron2.engine import SimpleTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from d2_isonet.distributed.preemption import StepExchange
from d2_isonet.utils.compat import call_after_backward

from .non_finite import NonFiniteError, check_gradients

Losses = dict[str, torch.Tensor]


class AccumulatingTrainer(SimpleTrainer):
    """SimpleTrainer whose step takes its batch in `accumulate_steps` parts, one after the other.

    The gradient is the sum over the parts of (images in the part / images in the batch) x (gradient
    of the part's loss): the batch's own where its loss is a mean over images. Several processes
    exchange gradients in the last part only. With one part it is SimpleTrainer's step.

    Each of `on_gradients` may add to the batch's gradients before anything waits for the device; it
    is given `scaled`, which multiplies as they are multiplied.

    Nothing is stepped on a loss or gradient that is not finite, and all processes find that out
    together, also where one alone meets it: none waits for ever for the others' gradients. Then
    `on_non_finite(batch, error)` is called; by default it raises the error.
    """

    def __init__(self, model, data_loader, optimizer, *, accumulate_steps: int = 1):
        super().__init__(model, data_loader, optimizer)
        self.accumulate_steps = accumulate_steps
        self.exchange = StepExchange()  # once a step
        self.on_gradients: list[Callable[[Callable], None]] = []
        self.on_non_finite: Callable[[list, FloatingPointError], None] = _raise

    def run_step(self) -> None:
        assert self.model.training, "the model was changed to eval mode"
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        problem = None
        try:
            losses = self._forward_and_backward(batch)
            for add in self.on_gradients:
                add(self.scaled)
            call_after_backward(self)
            self._write_metrics(losses, data_time)
            self._optimizer_step()
        except FloatingPointError as error:
            problem = error.with_traceback(None)  # which keeps the graph, and its memory, alive
        if problem is not None:
            self.on_non_finite(batch, problem)

    def _forward_and_backward(self, batch: list) -> Losses:
        """The losses of the batch, their gradients in `.grad`.

        Raises:
            NonFiniteError: on all processes, where the loss of one of them is not finite.
        """
        self.optimizer.zero_grad()
        *parts, last = parts_of(batch, self.accumulate_steps)
        summed: Losses = {}
        losses: Losses = {}
        reason = ""
        try:
            for part in parts:
                with self._without_all_reduce():
                    losses = self._share_of_losses(part, batch)
                    self.scaled(total(losses)).backward()
                _add(losses, summed)
            losses = self._share_of_losses(last, batch)
            _add(losses, summed)
        except (FloatingPointError, AssertionError) as error:  # detectron2 raises both, in one rank
            if isinstance(error, AssertionError) and "NaN" not in str(error):
                raise
            reason = str(error)
        finite = False if reason else torch.isfinite(total(summed))
        if not self.exchange.all_agree(finite, next(self.model.parameters()).device):
            raise NonFiniteError("loss", reason, {n: x.item() for n, x in summed.items()})
        self.scaled(total(losses)).backward()
        return summed

    def _share_of_losses(self, part: list, batch: list) -> Losses:
        share = len(part) / len(batch)
        return {name: loss * share for name, loss in self.losses(self.model, part).items()}

    def losses(self, model: nn.Module, images: list) -> Losses:
        """The losses that `model` returns, by name, in the precision of this training."""
        losses = model(images)
        return {"total_loss": losses} if isinstance(losses, torch.Tensor) else losses

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """What backward is called on: the loss, times what its gradients are multiplied by."""
        return loss

    def _optimizer_step(self) -> None:
        """
        Raises:
            NonFiniteError: a gradient is not finite; the weights are as before.
        """
        check_gradients(self.optimizer)
        self.optimizer.step()

    def _without_all_reduce(self) -> contextlib.AbstractContextManager:
        is_parallel = isinstance(self.model, DistributedDataParallel)
        return self.model.no_sync() if is_parallel else contextlib.nullcontext()


def total(losses: Losses) -> torch.Tensor:
    """The sum of all, 0-dim."""
    return functools.reduce(torch.add, losses.values())


def parts_of(batch: list, number: int) -> list:
    """`batch` cut into `number` parts whose sizes differ by one at most; fewer if it is smaller.

    Args:
        batch: a list of images, or a tensor (N, ...).
    """
    number = max(1, min(number, len(batch)))
    bounds = [len(batch) * i // number for i in range(number + 1)]
    return [batch[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def _add(losses: Losses, summed: Losses) -> None:
    for name, loss in losses.items():
        summed[name] = summed.get(name, 0) + loss.detach()


def _raise(batch: list, error: FloatingPointError) -> None:
    raise error
