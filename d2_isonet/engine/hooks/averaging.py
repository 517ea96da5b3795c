"""The exponential moving average of the weights."""

from collections.abc import Callable

from detectron2.engine import HookBase, TrainerBase
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from d2_isonet.checkpoint.checkpointer import ISONetCheckpointer
from d2_isonet.modeling.stages import unwrapped
from d2_isonet.utils.files import write_when_possible


class WeightAveraging(HookBase):
    """average <- decay * average + (1 - decay) * weights, after every step from the first one on.

    Buffers (BN statistics) are copied from the model, not averaged. The average is part of the
    trainer's checkpoint. The end of the training also writes it as a file of weights.

    Args:
        model: with or without DistributedDataParallel; all processes keep an average.
        decay: in [0, 1); 0.9998 averages over about the last 5000 steps.
        make_checkpointer: model -> the checkpointer that writes the average.
        attempts: how often to try writing model_final_ema.pth if the disk is full, a minute apart.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float,
        make_checkpointer: Callable[[nn.Module], ISONetCheckpointer],
        attempts: int = 20,
    ):
        model = unwrapped(model)
        # copies the weights at the first step, the buffers at every step
        self._averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._averaged.requires_grad_(False)
        self._model = model
        self._checkpointer = make_checkpointer(self.model)
        self.attempts = attempts

    @property
    def model(self) -> nn.Module:
        """The network with the averaged weights."""
        return self._averaged.module

    def after_step(self) -> None:
        self._averaged.update_parameters(self._model)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # not after a step that raised
            write_when_possible(lambda: self.save("model_final_ema"), self.attempts)

    def save(self, name: str, **extra) -> None:
        """Write the average to OUTPUT_DIR/<name>.pth, without optimizer state."""
        # a resumed training has kept the record of its checkpoint
        self._checkpointer.expected_meta = self.trainer.checkpointer.expected_meta
        self._checkpointer.save(name, tag=False, **extra)

    def state_dict(self) -> dict:
        return self._averaged.state_dict()

    def load_state_dict(self, state_dict: dict | None) -> None:
        """Restore the average of a checkpoint; None restarts it from the current weights."""
        if state_dict is None:
            self._averaged.n_averaged.zero_()
        else:
            self._averaged.load_state_dict(state_dict)


def averaging_of(trainer: TrainerBase) -> WeightAveraging | None:
    """The WeightAveraging hook of `trainer`, if it has one."""
    return next((hook for hook in trainer._hooks if isinstance(hook, WeightAveraging)), None)
