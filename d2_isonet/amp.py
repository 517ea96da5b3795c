"""Training in half precision, float16 with loss scaling or bfloat16, on v0.6 and HEAD alike."""

import time

import torch
from detectron2.engine import SimpleTrainer

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def check_precision(precision: str) -> None:
    """Raise ValueError unless `precision` is a key of PRECISIONS."""
    if precision not in PRECISIONS:
        raise ValueError(
            f"SOLVER.AMP.PRECISION is {precision!r}; it must be one of {sorted(PRECISIONS)}"
        )


class AMPTrainer(SimpleTrainer):
    """SimpleTrainer whose forward runs under autocast.

    detectron2's own has no bfloat16 in v0.6 and takes its arguments in another order on HEAD.
    Gradients reach the optimizer unscaled; a step that overflowed is skipped whole.

    Args:
        precision: a key of PRECISIONS.
        device_type: "cuda" or "cpu".
    """

    def __init__(self, model, data_loader, optimizer, *, precision="float16", device_type="cuda"):
        super().__init__(model, data_loader, optimizer)
        check_precision(precision)
        self.precision = PRECISIONS[precision]
        self.device_type = device_type
        # bfloat16 has float32's range: nothing to scale
        self.grad_scaler = torch.amp.GradScaler(device_type, enabled=precision == "float16")

    def run_step(self) -> None:
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast(self.device_type, self.precision):
            losses = self.model(data)
        self.optimizer.zero_grad()
        self.grad_scaler.scale(sum(losses.values())).backward()
        self._write_metrics(losses, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if "grad_scaler" in state_dict:  # a run may switch to half precision when it resumes
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
