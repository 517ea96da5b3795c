"""The trainers of one optimizer step: on a batch in parts, in full or in half precision."""

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

from d2_isonet.distributed.lifetime import with_loaders_that_outlive_signals
from d2_isonet.distributed.preemption import StepExchange
from d2_isonet.preflight.training import check_precision
from d2_isonet.utils.compat import call_after_backward

logger = logging.getLogger(__name__)
Losses = dict[str, torch.Tensor]


class NonFiniteError(FloatingPointError):
    """A loss, gradient or weight is NaN or infinite. All processes raise it together.

    Args:
        what: "loss", "gradient" or "weights".
        reason: the model's message, if it noticed the problem itself.
        losses: the losses of this process's batch, by name.
    """

    def __init__(self, what: str, reason: str = "", losses: Mapping[str, float] | None = None):
        verb = "are" if what == "weights" else "is"
        super().__init__(f"the {what} {verb} not finite" + (f" ({reason})" if reason else ""))
        self.what = what
        self.losses = dict(losses or {})


class AccumulatingTrainer(SimpleTrainer):
    """SimpleTrainer that can process a batch in `accumulate_steps` parts, one after the other.

    The gradient is the sum over the parts of (images in the part / images in the batch) x (gradient
    of the part's loss). If the loss is a mean over images, this is the gradient of the batch.
    Several processes exchange gradients in the last part only. With one part, this is
    SimpleTrainer's step.

    No process takes a step if a loss or gradient of any process is not finite. All processes learn
    this together, so that none waits for the gradients of another forever.

    Attributes:
        on_gradients: functions that add to the gradients of the batch before anything waits for the
            device. Each gets `scaled`, which multiplies a tensor by the factor of the gradients.
        on_non_finite: a function of the batch and the error, called instead of the step. The
            default None raises the error.
    """

    def __init__(self, model, data_loader, optimizer, *, accumulate_steps: int = 1):
        super().__init__(model, with_loaders_that_outlive_signals(data_loader), optimizer)
        self.accumulate_steps = accumulate_steps
        self.exchange = StepExchange()  # once a step
        self.on_gradients: list[Callable[[Callable], None]] = []
        self.on_non_finite: Callable[[list, FloatingPointError], None] | None = None

    def run_step(self) -> None:
        assert self.model.training, "the model was changed to eval mode"
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        try:
            losses = self._forward_and_backward(batch)
            for add in self.on_gradients:
                add(self.scaled)
            call_after_backward(self)
            self._write_metrics(losses, data_time)
            self._optimizer_step()
            return
        except FloatingPointError as error:
            problem = error.with_traceback(None)  # a traceback keeps the graph in memory
        if self.on_non_finite is None:
            raise problem
        self.on_non_finite(batch, problem)

    def _forward_and_backward(self, batch: list) -> Losses:
        """Fill `.grad` of all parameters and return the losses of the batch.

        Raises:
            NonFiniteError: the loss of a process is not finite. All processes raise it.
        """
        self.optimizer.zero_grad()
        *parts, last = parts_of(batch, self.accumulate_steps)
        losses: Losses = {}
        reason = ""
        try:
            for part in parts:
                with self._without_all_reduce():
                    self.scaled(self._loss(part, len(part) / len(batch), losses)).backward()
            loss = self._loss(last, len(last) / len(batch), losses)
        except (FloatingPointError, AssertionError) as error:  # detectron2 raises both, in one rank
            if isinstance(error, AssertionError) and "NaN" not in str(error):
                raise
            reason = str(error)
        finite = not reason and torch.isfinite(total(losses))
        if not self.exchange.all_agree(finite, next(self.model.parameters()).device):
            raise NonFiniteError("loss", reason, {n: x.item() for n, x in losses.items()})
        self.scaled(loss).backward()
        return losses

    def _loss(self, part: list, share: float, losses: Losses) -> torch.Tensor:
        """share x (loss of the part), 0-dim; adds its terms to `losses`."""
        terms = {name: loss * share for name, loss in self.losses(self.model, part).items()}
        for name, term in terms.items():
            losses[name] = losses.get(name, 0) + term.detach()
        return total(terms)

    def losses(self, model: nn.Module, images: list) -> Losses:
        """The losses of `model` by name, computed in the precision of this training."""
        losses = model(images)
        return {"total_loss": losses} if isinstance(losses, torch.Tensor) else losses

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss times the factor of the gradients; backward is called on the result."""
        return loss

    def _optimizer_step(self) -> None:
        check_gradients(self.optimizer)
        self.optimizer.step()

    def _without_all_reduce(self) -> contextlib.AbstractContextManager:
        is_parallel = isinstance(self.model, DistributedDataParallel)
        return self.model.no_sync() if is_parallel else contextlib.nullcontext()


class AMPTrainer(AccumulatingTrainer):
    """AccumulatingTrainer that runs forward under autocast.

    detectron2's AMPTrainer has no bfloat16 in v0.6 and another order of arguments on HEAD. Here the
    optimizer gets unscaled gradients, and a step that overflows is skipped as a whole.

    Args:
        precision: one of PRECISIONS in config/options.py.
        device_type: "cuda" or "cpu".
        accumulate_steps: see AccumulatingTrainer.
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
        # bfloat16 has the range of float32 and needs no scaling
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
        # An overflow halves the scale and skips the step. Below 1, scaling is not its cause.
        if self.grad_scaler.get_scale() < scale < 1:
            raise NonFiniteError("gradient", f"with a loss scale of {scale:g}")

    def state_dict(self) -> dict:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if "grad_scaler" in state_dict:  # a run may switch to half precision when it resumes
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def build_step(cfg: CfgNode, model, data_loader, optimizer) -> AccumulatingTrainer:
    """The trainer that SOLVER.AMP and SOLVER.ACCUMULATE_STEPS ask for."""
    precision, device_type = cfg.SOLVER.AMP.PRECISION, torch.device(cfg.MODEL.DEVICE).type
    trainer_class: Callable[..., AccumulatingTrainer] = AccumulatingTrainer
    if cfg.SOLVER.AMP.ENABLED and (precision, device_type) == ("float16", "cpu"):
        logger.warning(
            "SOLVER.AMP.PRECISION 'float16' needs a GPU: training in float32; a CPU has 'bfloat16'"
        )
    elif cfg.SOLVER.AMP.ENABLED:
        trainer_class = functools.partial(AMPTrainer, precision=precision, device_type=device_type)
    steps = cfg.SOLVER.ACCUMULATE_STEPS
    return trainer_class(model, data_loader, optimizer, accumulate_steps=steps)


def check_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Raise NonFiniteError unless all gradients are finite. Waits for the device once.

    The 2-norm takes a seventh of the time of the largest entry on a CPU. The largest entry decides
    only if the 2-norm is not finite: the square of a finite gradient can overflow.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
    gradients = [gradient for gradient in gradients if gradient is not None]
    for order in (2.0, math.inf):
        if math.isfinite(torch.nn.utils.get_total_norm(gradients, order).item()):
            return
    raise NonFiniteError("gradient")


def total(losses: Losses) -> torch.Tensor:
    """The sum of all losses, 0-dim."""
    return functools.reduce(torch.add, losses.values())


def parts_of(batch: list, number: int) -> list:
    """`batch` in `number` parts whose sizes differ by at most one; fewer parts if it is smaller.

    Args:
        batch: a list of images, or a tensor (N, ...).
    """
    number = max(1, min(number, len(batch)))
    bounds = [len(batch) * i // number for i in range(number + 1)]
    return [batch[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
