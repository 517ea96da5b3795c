"""The exponential moving average of the weights: kept, evaluated, saved."""

from collections.abc import Callable

from detectron2.engine import HookBase, TrainerBase
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from d2_isonet.checkpoint.checkpointer import ISONetCheckpointer
from d2_isonet.modeling.stages import unwrapped
from d2_isonet.utils.files import write_when_possible


class WeightAveraging(HookBase):
    """average <- decay * average + (1 - decay) * weights after every step, from the first step on.

    Buffers (the statistics of a BN) are those of the model, not averaged. The average is part of
    the trainer's checkpoint; at the end it is written as weights that load like any others.

    Args:
        model: with or without DistributedDataParallel around it; all processes hold an average.
        decay: in [0, 1); 0.9998 averages over about the last 5000 steps.
        make_checkpointer: model -> the checkpointer that writes the average.
        name: of the file of weights written at the end, without its suffix.
        attempts: to write that on a full disk, a minute between them.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float,
        make_checkpointer: Callable[[nn.Module], ISONetCheckpointer],
        name: str = "model_final_ema",
        attempts: int = 20,
    ):
        model = unwrapped(model)
        # torch's: a foreach lerp, that copies the weights at the first step and the buffers at all
        self._averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._averaged.requires_grad_(False)
        self._model = model
        self._checkpointer = make_checkpointer(self.model)
        self.name = name
        self.attempts = attempts

    @property
    def model(self) -> nn.Module:
        """The network with the averaged weights."""
        return self._averaged.module

    def after_step(self) -> None:
        self._averaged.update_parameters(self._model)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # not after a step that raised
            write_when_possible(lambda: self.save(self.name), self.attempts)

    def save(self, name: str) -> None:
        """Write the average to OUTPUT_DIR/<name>.pth, weights alone."""
        self._checkpointer.save(name, tag=False)

    def state_dict(self) -> dict:
        return self._averaged.state_dict()

    def load_state_dict(self, state_dict: dict) -> None:
        self._averaged.load_state_dict(state_dict)

    def go_back(self, state_dict: dict | None) -> None:
        """To the average of a checkpoint; one that has none starts it anew from its weights."""
        if state_dict is None:
            self._averaged.n_averaged.zero_()
        else:
            self.load_state_dict(state_dict)


def averaging_of(trainer: TrainerBase) -> WeightAveraging | None:
    """The average that `trainer` keeps, if it does."""
    return next((hook for hook in trainer._hooks if isinstance(hook, WeightAveraging)), None)
