"""Differences between detectron2 v0.6 and HEAD, and what both lack on a CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import detectron2
import torch
import torch.distributed as dist
from detectron2.config import LazyConfig
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .messages import MissingFileError, UserError

if TYPE_CHECKING:
    from detectron2.engine import TrainerBase


def create_local_process_group(processes_per_machine: int) -> None:
    """Let detectron2 know that every `processes_per_machine` consecutive ranks share a machine."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes_per_machine)
        return
    machine = comm.get_rank() // processes_per_machine  # v0.6 has the variable but no function
    for first in range(0, comm.get_world_size(), processes_per_machine):
        group = dist.new_group(list(range(first, first + processes_per_machine)))
        if first == machine * processes_per_machine:
            comm._LOCAL_PROCESS_GROUP = group


def create_ddp_model(model: nn.Module) -> nn.Module:
    """Wrap `model` in DistributedDataParallel if there are several processes, on a CPU too."""
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    return DistributedDataParallel(
        model, device_ids=[comm.get_local_rank()] if on_gpu else None, broadcast_buffers=False
    )


def call_after_backward(trainer: "TrainerBase") -> None:
    """Call the hooks' `after_backward` in a custom step; v0.6's hooks have none."""
    getattr(trainer, "after_backward", lambda: None)()


def load_file(checkpointer: Checkpointer, path: str, checkpointables: list[str] | None) -> dict:
    """Call `checkpointer.load` for a name that HEAD reads as a query, such as "what?.pth"."""
    checkpointer._parsed_url_during_load = urlparse("")  # v0.6 does not read it
    try:
        return Checkpointer.load(checkpointer, path, checkpointables)
    finally:
        checkpointer._parsed_url_during_load = None


def tracing_adapter(model: nn.Module, example: torch.Tensor, function: Callable) -> nn.Module:
    """detectron2's TracingAdapter, which traces `function(model, example)`; that returns tensors.

    Raises:
        UserError: this detectron2 has no such adapter (an official v0.6 without Caffe2).
    """
    try:
        from detectron2.export import TracingAdapter
    except ImportError as error:
        raise UserError(
            f"detectron2.export cannot be imported ({error}); the released v0.6 needs Caffe2",
            "install ./third_party/detectron2 of this project, or a newer detectron2",
        ) from error
    # after training mode, the exporters would restore that mode
    return TracingAdapter(model, (example,), function).eval()


def zoo_config(path: str) -> Any:
    """A LazyConfig of detectron2's model zoo, such as "common/train.py".

    HEAD's `model_zoo` cannot be imported with setuptools 81 or later. It has no configs if
    detectron2 is a checkout that was not installed: they are beside the package then.

    Raises:
        FileNotFoundError: this detectron2 has the config in neither place.
    """
    package = Path(detectron2.__file__).resolve().parent
    for folder in (package / "model_zoo" / "configs", package.parent / "configs"):
        if (folder / path).is_file():
            return LazyConfig.load(str(folder / path))
    raise MissingFileError(f"detectron2 in {package} has no config {path}: install it again")


def inner_trainer(trainer: "TrainerBase") -> "TrainerBase":
    """The trainer that runs the steps: that of a DefaultTrainer, or `trainer` itself."""
    return getattr(trainer, "_trainer", trainer)
