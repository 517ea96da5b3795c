"""One optimizer step from a batch taken in parts, ended alike on all processes where it fails."""

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable, Mapping

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from d2_isonet.distributed.preemption import StepExchange
from d2_isonet.preflight.training import check_precision
from d2_isonet.utils.compat import call_after_backward

logger = logging.getLogger(__name__)


class NonFiniteError(FloatingPointError):
    """Something of a training is NaN or infinite; all processes raise it alike.

    Args:
        what: "loss", "gradient" or "weights".
        reason: what the model said when it noticed, if it did.
        losses: of this process's batch, by name.
    """

    def __init__(self, what: str, reason: str = "", losses: Mapping[str, float] | None = None):
        verb = "are" if what == "weights" else "is"
        super().__init__(f"the {what} {verb} not finite" + (f" ({reason})" if reason else ""))
        self.what = what
        self.reason = reason
        self.losses = dict(losses or {})


def check_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Raise NonFiniteError where a gradient is not finite: their norm tells, in one wait.

    A seventh of the time on a CPU that the largest entry would take, which is asked where the norm
    is infinite: the square of a finite gradient can overflow.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
    gradients = [gradient for gradient in gradients if gradient is not None]
    for order in (2.0, math.inf):
        if math.isfinite(torch.nn.utils.get_total_norm(gradients, order).item()):
            return
    raise NonFiniteError("gradient")


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


class AMPTrainer(AccumulatingTrainer):
    """AccumulatingTrainer whose forward runs under autocast.

    detectron2's own has no bfloat16 in v0.6 and takes its arguments in another order on HEAD.
    Gradients reach the optimizer unscaled; a step that overflowed is skipped whole.

    Args:
        precision: one of PRECISIONS in config/options.py.
        device_type: "cuda" or "cpu".
        accumulate_steps: as in AccumulatingTrainer.
    """

    def __init__(
        self,
        model,
        data_loader,
        optimizer,
        *,
        precision: str = "float16",
        device_type: str = "cuda",
        accumulate_steps: int = 1,
    ):
        super().__init__(model, data_loader, optimizer, accumulate_steps=accumulate_steps)
        check_precision(precision)
        self.precision = getattr(torch, precision)
        self.device_type = device_type
        # bfloat16 has float32's range: nothing to scale
        self.grad_scaler = torch.amp.GradScaler(device_type, enabled=precision == "float16")

    def losses(self, model: nn.Module, images: list) -> Losses:
        with torch.autocast(self.device_type, self.precision):
            return super().losses(model, images)

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return self.grad_scaler.scale(loss)

    def _optimizer_step(self) -> None:
        if not self.grad_scaler.is_enabled():
            super()._optimizer_step()
            return
        scale = self.grad_scaler.get_scale()
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        # An overflow is skipped and the scale halved: no failure, until scaling is not its cause.
        if self.grad_scaler.get_scale() < scale < 1:
            raise NonFiniteError("gradient", f"with a loss scale of {scale:g}")

    def state_dict(self) -> dict:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if "grad_scaler" in state_dict:  # a run may switch to half precision when it resumes
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def build_step(cfg: CfgNode, model, data_loader, optimizer) -> AccumulatingTrainer:
    precision, device_type = cfg.SOLVER.AMP.PRECISION, torch.device(cfg.MODEL.DEVICE).type
    steps = {"accumulate_steps": cfg.SOLVER.ACCUMULATE_STEPS}
    if cfg.SOLVER.AMP.ENABLED and (precision, device_type) != ("float16", "cpu"):
        options = {"precision": precision, "device_type": device_type, **steps}
        return AMPTrainer(model, data_loader, optimizer, **options)
    if cfg.SOLVER.AMP.ENABLED:
        logger.warning(
            "SOLVER.AMP.PRECISION 'float16' needs a GPU: training in float32; a CPU has 'bfloat16'"
        )
    return AccumulatingTrainer(model, data_loader, optimizer, **steps)
