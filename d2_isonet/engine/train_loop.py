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

    `what` is "loss", "gradient" or "weights". `reason` is the model's message if it noticed the
    problem itself, and `losses` are those of this process's batch by name.
    """

    def __init__(self, what: str, reason: str = "", losses: Mapping[str, float] | None = None):
        verb = "are" if what == "weights" else "is"
        super().__init__(f"the {what} {verb} not finite" + (f" ({reason})" if reason else ""))
        self.what = what
        self.losses = dict(losses or {})


class AccumulatingTrainer(SimpleTrainer):
    """SimpleTrainer on a batch in parts, one after the other, in full or in half precision.

    The gradient is the sum over the parts of (images in the part / images in the batch) x (gradient
    of the part's loss). If the loss is a mean over images, this is the gradient of the batch.
    Several processes exchange gradients in the last part only. With one part and in full precision,
    this is SimpleTrainer's step.

    No process takes a step if a loss or gradient of any process is not finite. All processes learn
    this together, so that none waits for the gradients of another forever.

    detectron2's AMPTrainer has no bfloat16 in v0.6 and another order of arguments on HEAD. Here the
    optimizer gets unscaled gradients, and a step that overflows is skipped as a whole.

    Args:
        accumulate_steps: number of parts.
        precision: of forward under autocast, one of PRECISIONS in config/options.py; "" is float32.
        device_type: "cuda" or "cpu".

    Attributes:
        on_gradients: functions that add to the gradients of the batch before anything waits for the
            device. Each gets `scaled`, which multiplies a tensor by the factor of the gradients.
        on_non_finite: a function of the batch and the error, called instead of the step. The
            default None raises the error.
    """

    def __init__(
        self, model, data_loader, optimizer, *, accumulate_steps=1, precision="", device_type="cuda"
    ):
        super().__init__(model, with_loaders_that_outlive_signals(data_loader), optimizer)
        if precision:
            check_precision(precision)
        self.accumulate_steps = accumulate_steps
        self.precision = precision
        self.device_type = device_type
        # bfloat16 has the range of float32 and needs no scaling
        self.grad_scaler = torch.amp.GradScaler(device_type, enabled=precision == "float16")
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

        All processes raise NonFiniteError if the loss of one is not finite.
        """
        self.optimizer.zero_grad()
        *parts, last = parts_of(batch, self.accumulate_steps)
        is_parallel = isinstance(self.model, DistributedDataParallel)
        losses: Losses = {}
        reason = ""
        try:
            for part in parts:
                with self.model.no_sync() if is_parallel else contextlib.nullcontext():
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
        half = self.precision and torch.autocast(self.device_type, getattr(torch, self.precision))
        with half or contextlib.nullcontext():
            losses = model(images)
        return {"total_loss": losses} if isinstance(losses, torch.Tensor) else losses

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss times the factor of the gradients; backward is called on the result."""
        return self.grad_scaler.scale(loss)

    def _optimizer_step(self) -> None:
        if not self.grad_scaler.is_enabled():
            check_gradients(self.optimizer)
            self.optimizer.step()
            return
        scale = self.grad_scaler.get_scale()
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        # An overflow halves the scale and skips the step. Below 1, scaling is not its cause.
        if self.grad_scaler.get_scale() < scale < 1:
            raise NonFiniteError("gradient", f"with a loss scale of {scale:g}")

    def state_dict(self) -> dict:
        state = super().state_dict()
        return {**state, "grad_scaler": self.grad_scaler.state_dict()} if self.precision else state

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if self.precision and "grad_scaler" in state_dict:  # a resumed run may change the precision
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def build_step(cfg: CfgNode, model, data_loader, optimizer) -> AccumulatingTrainer:
    """The trainer that SOLVER.AMP and SOLVER.ACCUMULATE_STEPS ask for."""
    precision = cfg.SOLVER.AMP.PRECISION if cfg.SOLVER.AMP.ENABLED else ""
    device_type = torch.device(cfg.MODEL.DEVICE).type
    if (precision, device_type) == ("float16", "cpu"):
        precision = ""
        logger.warning(
            "SOLVER.AMP.PRECISION 'float16' needs a GPU: training in float32; a CPU has 'bfloat16'"
        )
    options = {"precision": precision, "device_type": device_type}
    steps = cfg.SOLVER.ACCUMULATE_STEPS
    return AccumulatingTrainer(model, data_loader, optimizer, accumulate_steps=steps, **options)


def check_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Raise NonFiniteError unless all gradients are finite. Waits for the device once.

    The 2-norm takes a seventh of the time of the largest entry on a CPU. The largest entry decides
    only if the 2-norm is not finite: the square of a finite gradient can overflow.
    """
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    gradients = [p.grad for p in parameters if p.grad is not None]
    for order in (2.0, math.inf):
        if math.isfinite(torch.nn.utils.get_total_norm(gradients, order).item()):
            return
    raise NonFiniteError("gradient")


def total(losses: Losses) -> torch.Tensor:
    """The sum of all losses, 0-dim."""
    return functools.reduce(torch.add, losses.values())


def parts_of(batch: list, number: int) -> list:
    """`batch`, a list of images or a tensor (N, ...), in `number` parts, or fewer if it is smaller.

    Their sizes differ by at most one.
    """
    number = max(1, min(number, len(batch)))
    bounds = [len(batch) * i // number for i in range(number + 1)]
    return [batch[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
