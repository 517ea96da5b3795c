"""Losses, gradients and weights that are NaN or infinite: noticed, alike on all processes."""

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

from .averaging import averaging_of
from .non_finite_layer import find_non_finite_layer

logger = logging.getLogger(__name__)


@torch.no_grad()
def non_finite_tensors(tensors: Mapping[str, torch.Tensor | None]) -> list[str]:
    """The names of those that are not finite everywhere, in order."""
    floating = {n: x for n, x in tensors.items() if x is not None and x.is_floating_point()}
    if not floating:
        return []
    norms = torch._foreach_norm(list(floating.values()))
    finite = torch.stack([norm.isfinite() for norm in norms]).tolist()  # one wait for the device
    suspects = [name for name, good in zip(floating, finite, strict=True) if not good]
    return [name for name in suspects if not floating[name].isfinite().all()]


def weights_and_statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer of `model` by its name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def in_words(facts: dict, why_stopped: str, file: str) -> str:
    """The message of a failed step.

    Args:
        facts: what NonFiniteRecovery gathers; "processes" has each one's.
        why_stopped: why the training is not skipping or rolling back as it was asked to; "".
        file: where all facts are.
    """
    found = [own for own in facts["processes"] if "layer" in own or "raised" in own]
    met = (found or facts["processes"])[0]
    rows = {
        "losses": ", ".join(f"{name} {x}" for name, x in met["losses"].items()),
        "weights not finite": _some(met["non_finite_weights"]),
        "first layer": _layer_in_words(met) if "images" in met else "",
        "gradients not finite": _some(met["non_finite_gradients"]),
        "images": _some([name for name in met.get("images", []) if name], 16),
        "learning rate": f"{facts['learning_rate']:g}",
        "last good checkpoint": facts["last_checkpoint"] or "none yet",
        "all facts": file,
    }
    table = "".join(f"\n  {name}: {text}" for name, text in rows.items() if text)
    reason = f"Stopped: {why_stopped}. " if why_stopped else ""
    what_follows = _WHAT_FOLLOWS[facts["action"]]
    return f"Iteration {facts['iteration']}: {met['reason']}{table}\n{reason}{what_follows}"


_WHAT_FOLLOWS = {
    "stop": "Lower SOLVER.BASE_LR, lengthen the warm-up, clip gradients (SOLVER.CLIP_GRADIENTS), "
    "or set SOLVER.NON_FINITE.ACTION skip or rollback",
    "skip": "The step is skipped",
    "rollback": "Weights and optimizer are those of that checkpoint again",
}


def _layer_in_words(met: dict) -> str:
    if "raised" in met:
        return f"none, but the model said: {met['raised']}"
    if "layer" not in met:
        return met.get("tensor", "none, a second forward and backward of the batch was finite")
    layer = f"{met['layer'] or 'the model itself'} ({met['type']})"
    if met["tensor"].startswith("gradient") and met["last_finite"]:
        return f"the {met['tensor']} of {layer}, as {met['last_finite']} hands it back"
    return f"the {met['tensor']} of {layer}"


def _some(names: list[str], number: int = 3) -> str:
    more = f" and {len(names) - number} more" if len(names) > number else ""
    return ", ".join(names[:number]) + more


class NonFiniteRecovery(HookBase):
    """Writes down why a step failed, and ends the training or lets it go on.

    "stop" raises NonFiniteError. "skip" leaves weights, momentum and statistics as they were before
    the step. "rollback" takes weights, optimizer and weight average from the last checkpoint; the
    iteration, the learning rate and the images go on from where they are, so that what was lost is
    not trained again and the same images do not come again.

    The facts go to OUTPUT_DIR/non_finite_<iteration>.json: layer, images, learning rate, losses.
    Costs nothing until it is needed, but for "skip" with statistics (BN), which are copied.
    """

    def __init__(self, output_dir: str, action: str = "stop", limit: int = 5, period: int = 0):
        """
        Args:
            action: one of ACTIONS.
            limit: so many failures after the last checkpoint are gone past; the next one stops.
            period: iterations between checkpoints. Before each the weights are looked at, so that
                none is written of weights that are not finite.
        """
        check_name("SOLVER.NON_FINITE.ACTION", action, ACTIONS)
        self.output_dir = output_dir
        self.action = action
        self.limit = limit
        self.period = period
        self.failures = 0  # after `_checkpoint`
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
            self._check_weights()
        if self._statistics:
            torch._foreach_copy_(self._statistics, list(self._step.model.buffers()))

    def _check_weights(self) -> None:
        spoilt = non_finite_tensors(weights_and_statistics(self._step.model))
        device = next(self._step.model.parameters()).device
        if not StepExchange().all_agree(not spoilt, device):
            self._recover([], NonFiniteError("weights", ", ".join(spoilt[:3])))

    def _recover(self, batch: list, error: FloatingPointError) -> None:
        checkpoint = self._last_checkpoint()
        self.failures = self.failures + 1 if checkpoint == self._checkpoint else 1
        self._checkpoint = checkpoint
        self.trainer.storage.put_scalar("non_finite_steps", self.failures)
        action, why = self._possible_action(checkpoint, getattr(error, "what", ""))
        facts = self._facts(batch, error) | {"action": action, "last_checkpoint": checkpoint}
        message = in_words(facts, why, self._write(facts))
        if action == "stop":
            if comm.is_main_process():
                logger.error(message)
            comm.synchronize()  # the first process to end may take the others with it
            error.args = (message,)
            raise error
        if comm.is_main_process():
            logger.warning(message)
        self._step.optimizer.zero_grad()
        if action == "rollback":
            self._roll_back(checkpoint)
        elif self._statistics:
            with torch.no_grad():
                torch._foreach_copy_(list(self._step.model.buffers()), self._statistics)

    def _last_checkpoint(self) -> str:
        """The file that the main process would resume from; "" without one."""
        checkpointer = getattr(self.trainer, "checkpointer", None)
        path = ""
        if checkpointer is not None and checkpointer.has_checkpoint():
            path = checkpointer.get_checkpoint_file()
        return comm.all_gather(path)[0]

    def _possible_action(self, checkpoint: str, what: str) -> tuple[str, str]:
        """One of ACTIONS, and why it is not the one that was asked for."""
        if self.action == "stop":
            return "stop", ""
        if self.failures > self.limit:
            return "stop", f"{self.limit} were gone past (SOLVER.NON_FINITE.LIMIT)"
        if self.action == "rollback" and not checkpoint:
            return "stop", "there is no checkpoint to roll back to yet (SOLVER.CHECKPOINT_PERIOD)"
        if self.action == "skip" and what == "weights":
            return "stop", "to skip a step does not mend weights"
        return self.action, ""

    def _facts(self, batch: list, error: FloatingPointError) -> dict:
        """What there is to tell, in plain types; the same on every process."""
        optimizer = self._step.optimizer
        group = optimizer.param_groups[LRScheduler.get_best_param_group_id(optimizer)]
        model = self._step.model
        gradients = {name: p.grad for name, p in model.named_parameters()}
        own = {
            "losses": {name: repr(x) for name, x in getattr(error, "losses", {}).items()},
            "reason": str(error),
            "non_finite_weights": non_finite_tensors(weights_and_statistics(model)),
            "non_finite_gradients": non_finite_tensors(gradients),
        }
        if batch:
            own |= self._layer(batch)
        everyone = comm.all_gather(own)
        return {
            "iteration": self.trainer.iter,
            "learning_rate": group["lr"],
            "failures_since_checkpoint": self.failures,
            "processes": everyone,
        }

    def _layer(self, batch: list) -> dict:
        try:
            return find_non_finite_layer(self._step, batch)
        except torch.OutOfMemoryError as error:
            return {"tensor": f"not found, a second forward has no memory: {error}"}

    def _write(self, facts: dict) -> str:
        """The file's name, or why there is none: a full disk must not hide what happened."""
        path = Path(self.output_dir) / f"non_finite_{facts['iteration']:07d}.json"
        problem = ""
        if comm.is_main_process():
            try:
                write_text(path, json.dumps(facts, indent=1))
            except SaveError as error:
                problem = str(error)
        return comm.all_gather(problem)[0] or str(path)

    def _roll_back(self, checkpoint: str) -> None:
        rest = self.trainer.checkpointer.load(checkpoint, checkpointables=[])
        state = rest.get("trainer", {})
        groups = self._step.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        if "_trainer" in state:
            self._step.load_state_dict(state["_trainer"])
        else:  # detectron2 v0.6 leaves it out
            self._step.optimizer.state.clear()
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        averaging = averaging_of(self.trainer)
        if averaging is not None:
            averaging.go_back(state.get("hooks", {}).get(type(averaging).__qualname__))
        self._step.iter = self.trainer.iter
