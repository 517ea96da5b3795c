"""Training in half precision, float16 with loss scaling or bfloat16, on v0.6 and HEAD alike."""

import torch
from torch import nn

from d2_isonet.config.options import PRECISIONS
from d2_isonet.preflight.training import check_precision

from .accumulation import AccumulatingTrainer, Losses
from .non_finite import NonFiniteError


class AMPTrainer(AccumulatingTrainer):
    """AccumulatingTrainer whose forward runs under autocast.

    detectron2's own has no bfloat16 in v0.6 and takes its arguments in another order on HEAD.
    Gradients reach the optimizer unscaled; a step that overflowed is skipped whole.

    Args:
        precision: a key of PRECISIONS.
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
        self.precision = PRECISIONS[precision]
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
