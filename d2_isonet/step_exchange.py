"""What the processes of a training tell each other in a step, all of it in one exchange."""

import torch
from detectron2.utils import comm
from torch import distributed as dist


class StepExchange:
    """Whether all processes may go on with a step, and whether one of them was sent a signal.

    `signal` is what this process has to tell from its next exchange on, 0 for nothing.
    """

    def __init__(self):
        self.signal = 0
        self._highest_signal: int | None = None

    def all_agree(self, flag: bool | torch.Tensor, device: torch.device | str = "cpu") -> bool:
        """Whether `flag` is true on every process; each must ask.

        Args:
            device: where the processes' backend exchanges tensors.
        """
        if comm.get_world_size() == 1:
            self._highest_signal = self.signal
            return bool(flag)
        told = torch.zeros(2, dtype=torch.int32, device=device)
        told[0], told[1] = torch.as_tensor(flag).logical_not(), self.signal
        dist.all_reduce(told, dist.ReduceOp.MAX)
        objections, self._highest_signal = told.tolist()
        return objections == 0

    def highest_signal(self) -> int:
        """The highest number that any process had to tell, the same on all; each must ask.

        As of the exchange since it was last asked; a step that had none, of another kind than
        AccumulatingTrainer's, is made up for.
        """
        highest, self._highest_signal = self._highest_signal, None
        return max(comm.all_gather(self.signal)) if highest is None else highest
