"""The hook that logs during training how isometric a network is."""

import logging
import math
from collections import defaultdict

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.stages import chain_of, default_convolutions, label_of, stage_of, unwrapped
from d2_isonet.utils.compat import inner_trainer
from d2_isonet.utils.messages import UserError

from .measures import possible_singular_values, residual_scales, share_near_one, shifts_by_stage
from .signal_propagation import SignalWatch

logger = logging.getLogger(__name__)
_BINS = 50  # of a histogram


class IsometryMonitor(HookBase):
    """Logs isometry at iteration 0 and every `period` iterations, in any detectron2 trainer.

    Scalars by stage: `isometry/singular_value_min/res2`, `.../singular_value_max/...`,
    `.../near_one/...` (share in 0.9..1.1), `.../shift_mean/...`. Scalars by block:
    `isometry/residual_scale/res2.0` (mean of |s|), `.../rms/...` of the output, and
    `.../gradient/...`, the norm of the gradient of the loss at the output. Histograms by stage,
    unless all values are equal: `isometry/singular_values/res2`, `isometry/shifts/res2`.
    OrthogonalRegularizer logs the excess of the penalty, at each step and at a lower cost.

    The training does not change: the hook reads weights, and records norms in the forward and
    backward pass of the step. It runs in the main process alone, on the images of that process; if
    a step has parts (SOLVER.ACCUMULATE_STEPS), on those of the last part. Singular values are those
    of the model, not of an average of its weights.

    Args:
        period: in iterations; 0 disables the hook.
        frequencies: of the output along each axis at which singular values are computed. With 2,
            the frequencies 0 and pi, they are some of the singular values on every image of even
            size.

    Raises:
        UserError: period is negative.
    """

    def __init__(self, period: int, frequencies: int = 2):
        if period < 0:
            raise UserError(f"TEST.ISOMETRY_PERIOD is {period}", "it must be 0 (never) or positive")
        self.period = period
        self.frequencies = frequencies
        self._watch: SignalWatch | None = None
        self._loss_scale = 1.0

    def before_train(self) -> None:
        if _is_compiled(self._model()):
            logger.info("isometry/rms and isometry/gradient are not logged: the model is compiled")

    def before_step(self) -> None:
        if self.period and self.trainer.iter % self.period == 0 and comm.is_main_process():
            self._loss_scale = _loss_scale(self.trainer)
            model = self._model()
            # hooks in a compiled network would compile it again
            self._watch = SignalWatch({} if _is_compiled(model) else chain_of(model))

    def after_step(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._log_signals(self._watch)
            self._log_convolutions()
            self._log_parameters()
            self._watch = None

    def after_train(self) -> None:
        if self._watch is not None:
            self._watch.close()  # a step has raised

    def _model(self) -> nn.Module:
        return unwrapped(self.trainer.model)

    def _log_signals(self, watch: SignalWatch) -> None:
        for name, (norm, entries) in watch.outputs.items():
            self._put(f"rms/{label_of(name)}", norm.item() / math.sqrt(max(entries, 1)))
        for name, norm in watch.gradients.items():
            self._put(f"gradient/{label_of(name)}", norm.item() / self._loss_scale)

    def _log_convolutions(self) -> None:
        stages = defaultdict(list)
        for name, conv in default_convolutions(self._model()).items():
            # to read a computed weight (spectral norm) may change it
            if "weight" in conv._parameters and not isinstance(conv, DecoupledConv2d):
                stages[stage_of(name)].append(possible_singular_values(conv, self.frequencies))
        for stage, found in stages.items():
            values = torch.cat(found)
            self._put(f"singular_value_min/{stage}", values.min().item())
            self._put(f"singular_value_max/{stage}", values.max().item())
            self._put(f"near_one/{stage}", share_near_one(values))
            self._put_histogram(f"singular_values/{stage}", values)

    def _log_parameters(self) -> None:
        parameters = dict(self._model().named_parameters())
        for block, scale in residual_scales(parameters).items():
            self._put(f"residual_scale/{label_of(block)}", scale.abs().mean().item())
        for stage, shifts in shifts_by_stage(parameters).items():
            self._put(f"shift_mean/{stage}", shifts.mean().item())
            self._put_histogram(f"shifts/{stage}", shifts)

    def _put(self, name: str, value: float) -> None:
        self.trainer.storage.put_scalar(f"isometry/{name}", value, smoothing_hint=False)

    def _put_histogram(self, name: str, values: torch.Tensor) -> None:
        values = values.float().cpu()  # a GPU's histogram is not deterministic
        if torch.isfinite(values).all() and values.min() < values.max():
            self.trainer.storage.put_histogram(f"isometry/{name}", values, bins=_BINS)


def _loss_scale(trainer) -> float:
    """The factor on the gradients of this step (AMP in float16)."""
    scaler = getattr(inner_trainer(trainer), "grad_scaler", None)
    return 1.0 if scaler is None else scaler.get_scale()


def _is_compiled(model: nn.Module) -> bool:
    return any(module._compiled_call_impl is not None for module in model.modules())
