"""Recovery from a step whose loss, gradients or weights are NaN or infinite, and its report."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import LRScheduler
from detectron2.utils import comm
from torch import nn

from d2_isonet.config.options import ACTIONS, check_name
from d2_isonet.distributed.preemption import StepExchange
from d2_isonet.engine.train_loop import NonFiniteError
from d2_isonet.utils.compat import inner_trainer
from d2_isonet.utils.files import SaveError, write_text
from d2_isonet.utils.messages import shortened

from .averaging import averaging_of
from .non_finite_layer import find_non_finite_layer

logger = logging.getLogger(__name__)


class NonFiniteRecovery(HookBase):
    """Reports why a step failed, then stops the training, skips the step or rolls back.

    "stop" raises NonFiniteError. "skip" keeps the weights, momentum and statistics from before the
    step. "rollback" loads weights, optimizer and weight average of the last checkpoint. Iteration,
    learning rate and images continue from the failed step: the lost steps are not repeated, and the
    training does not meet the same images again.

    OUTPUT_DIR/non_finite_<iteration>.json gets all facts: layer, images, learning rate, losses.
    The hook costs nothing before a failure, except that "skip" copies statistics (BN) every step.

    Args:
        action: one of ACTIONS.
        limit: number of failures tolerated since the last checkpoint; one more stops the training.
        period: iterations between checkpoints. The weights are checked before each, so that no
            checkpoint has weights that are not finite.
    """

    def __init__(self, output_dir: str, action: str = "stop", limit: int = 5, period: int = 0):
        check_name("SOLVER.NON_FINITE.ACTION", action, ACTIONS)
        self.output_dir = output_dir
        self.action = action
        self.limit = limit
        self.period = period
        self.failures = 0  # since `_checkpoint`
        self._checkpoint = ""
        self._statistics: list[torch.Tensor] = []

    @property
    def _step(self):
        return inner_trainer(self.trainer)

    def before_train(self) -> None:
        self._step.on_non_finite = self._recover
        if self.action == "skip":
            self._statistics = [buffer.clone() for buffer in self._step.model.buffers()]

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or (self.period and done % self.period == 0):
            model = self._step.model
            spoilt = non_finite_weights(model)
            if not StepExchange().all_agree(not spoilt, next(model.parameters()).device):
                self._recover([], NonFiniteError("weights", ", ".join(spoilt[:3])))
        if self._statistics:
            torch._foreach_copy_(self._statistics, list(self._step.model.buffers()))

    def _recover(self, batch: list, error: FloatingPointError) -> None:
        checkpointer = getattr(self.trainer, "checkpointer", None)
        checkpoint = checkpointer.get_checkpoint_file() if checkpointer else ""
        checkpoint = comm.all_gather(checkpoint)[0]  # from which the main process would resume
        self.failures = self.failures + 1 if checkpoint == self._checkpoint else 1
        self._checkpoint = checkpoint
        self.trainer.storage.put_scalar("non_finite_steps", self.failures)
        action, why = self._possible_action(checkpoint, getattr(error, "what", ""))
        facts = self._facts(batch, error) | {"action": action, "last_checkpoint": checkpoint}
        message = format_message(facts, why, self._write(facts))
        if comm.is_main_process():
            logger.log(logging.ERROR if action == "stop" else logging.WARNING, message)
        if action == "stop":
            comm.synchronize()  # the first process to end may take the others with it
            error.args = (message,)
            raise error
        self._step.optimizer.zero_grad()
        if action == "rollback":
            self._roll_back(checkpoint)
        elif self._statistics:
            with torch.no_grad():
                torch._foreach_copy_(list(self._step.model.buffers()), self._statistics)

    def _possible_action(self, checkpoint: str, what: str) -> tuple[str, str]:
        """One of ACTIONS, and the reason if it is not self.action."""
        if self.action == "stop":
            return "stop", ""
        if self.failures > self.limit:
            return "stop", f"{self.limit} were tolerated (SOLVER.NON_FINITE.LIMIT)"
        if self.action == "rollback" and not checkpoint:
            return "stop", "there is no checkpoint to roll back to yet (SOLVER.CHECKPOINT_PERIOD)"
        if self.action == "skip" and what == "weights":
            return "stop", "skipping a step does not repair weights"
        return self.action, ""

    def _facts(self, batch: list, error: FloatingPointError) -> dict:
        """All facts about the failure as plain types; the same on every process."""
        optimizer, model = self._step.optimizer, self._step.model
        group = optimizer.param_groups[LRScheduler.get_best_param_group_id(optimizer)]
        gradients = {name: p.grad for name, p in model.named_parameters()}
        own = {
            "losses": {name: repr(x) for name, x in getattr(error, "losses", {}).items()},
            "reason": str(error),
            "non_finite_weights": non_finite_weights(model),
            "non_finite_gradients": non_finite_tensors(gradients),
        }
        if batch:
            try:
                own |= find_non_finite_layer(self._step, batch)
            except torch.OutOfMemoryError as full:
                own["tensor"] = f"not found, a second forward has no memory: {full}"
        return {
            "iteration": self.trainer.iter,
            "learning_rate": group["lr"],
            "failures_since_checkpoint": self.failures,
            "processes": comm.all_gather(own),
        }

    def _write(self, facts: dict) -> str:
        """The name of the written file, or why it is missing: the report must not depend on it."""
        path = Path(self.output_dir) / f"non_finite_{facts['iteration']:07d}.json"
        result = str(path)
        if comm.is_main_process():
            try:
                write_text(path, json.dumps(facts, indent=1))
            except SaveError as error:
                result = str(error)
        return comm.all_gather(result)[0]

    def _roll_back(self, checkpoint: str) -> None:
        rest = self.trainer.checkpointer.load(checkpoint, checkpointables=[])
        state, optimizer = rest.get("trainer", {}), self._step.optimizer
        rates = [group["lr"] for group in optimizer.param_groups]
        if "_trainer" in state:
            self._step.load_state_dict(state["_trainer"])
        else:  # detectron2 v0.6 does not save it
            optimizer.state.clear()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        averaging = averaging_of(self.trainer)
        if averaging is not None:
            averaging.load_state_dict(state.get("hooks", {}).get(type(averaging).__qualname__))
        self._step.iter = self.trainer.iter


def non_finite_weights(model: nn.Module) -> list[str]:
    """The names of the parameters and buffers of `model` that are not finite everywhere."""
    return non_finite_tensors({**dict(model.named_parameters()), **dict(model.named_buffers())})


@torch.no_grad()
def non_finite_tensors(tensors: Mapping[str, torch.Tensor | None]) -> list[str]:
    """The names of the tensors that are not finite everywhere, in order."""
    floating = {n: x for n, x in tensors.items() if x is not None and x.is_floating_point()}
    if not floating:
        return []
    norms = torch._foreach_norm(list(floating.values()))
    finite = torch.stack([norm.isfinite() for norm in norms]).tolist()  # waits for the device once
    suspects = [name for name, good in zip(floating, finite, strict=True) if not good]
    return [name for name in suspects if not floating[name].isfinite().all()]


_WHAT_FOLLOWS = {
    "stop": "Lower SOLVER.BASE_LR, lengthen the warm-up, clip gradients (SOLVER.CLIP_GRADIENTS), "
    "or set SOLVER.NON_FINITE.ACTION skip or rollback",
    "skip": "The step is skipped",
    "rollback": "Weights and optimizer are those of that checkpoint again",
}


def format_message(facts: dict, why_stopped: str, file: str) -> str:
    """The report of a failed step as text.

    `file` has all of NonFiniteRecovery's `facts`. `why_stopped` is the reason if the training stops
    although it was asked to skip or roll back, else "".
    """
    found = [own for own in facts["processes"] if "layer" in own or "raised" in own]
    met = (found or facts["processes"])[0]
    rows = {
        "losses": ", ".join(f"{name} {x}" for name, x in met["losses"].items()),
        "weights not finite": shortened(met["non_finite_weights"], 3),
        "first layer": _format_layer(met) if "images" in met else "",
        "gradients not finite": shortened(met["non_finite_gradients"], 3),
        "images": shortened([name for name in met.get("images", []) if name], 16),
        "learning rate": f"{facts['learning_rate']:g}",
        "last good checkpoint": facts["last_checkpoint"] or "none yet",
        "all facts": file,
    }
    table = "".join(f"\n  {name}: {text}" for name, text in rows.items() if text)
    reason = f"Stopped: {why_stopped}. " if why_stopped else ""
    what_follows = _WHAT_FOLLOWS[facts["action"]]
    return f"Iteration {facts['iteration']}: {met['reason']}{table}\n{reason}{what_follows}"


def _format_layer(met: dict) -> str:
    if "raised" in met:
        return f"none, but the model said: {met['raised']}"
    if "layer" not in met:
        return met.get("tensor", "none, a second forward and backward of the batch was finite")
    layer = f"{met['layer'] or 'the model itself'} ({met['type']})"
    if met["tensor"].startswith("gradient") and met["last_finite"]:
        return f"the {met['tensor']} of {layer}, as {met['last_finite']} hands it back"
    return f"the {met['tensor']} of {layer}"
