"""The differences between detectron2 v0.6 and HEAD, and what neither does on a CPU."""

from typing import TYPE_CHECKING

import torch.distributed as dist
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from .coco_evaluation import FastCOCOEvaluator


def create_local_process_group(processes_per_machine: int) -> None:
    """Tell detectron2 which processes share a machine: so many in a row."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes_per_machine)
        return
    machine = comm.get_rank() // processes_per_machine  # v0.6 has the variable but no function
    for first in range(0, comm.get_world_size(), processes_per_machine):
        group = dist.new_group(list(range(first, first + processes_per_machine)))
        if first == machine * processes_per_machine:
            comm._LOCAL_PROCESS_GROUP = group


def create_ddp_model(model: nn.Module) -> nn.Module:
    """`model` in DistributedDataParallel where there are several processes; on a CPU too."""
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    return DistributedDataParallel(
        model, device_ids=[comm.get_local_rank()] if on_gpu else None, broadcast_buffers=False
    )


def coco_evaluator(dataset_name: str, output_dir: str) -> "FastCOCOEvaluator":
    """A COCOEvaluator with pycocotools' numbers; it needs no compiled detectron2.

    What annotation tools leave out and pycocotools needs is filled in: objects are no crowds, and
    their area is that of their box.
    """
    from .coco_evaluation import FastCOCOEvaluator  # the launcher does not wait for its imports

    evaluator = FastCOCOEvaluator(dataset_name, output_dir=output_dir, use_fast_impl=False)
    for annotation in evaluator._coco_api.dataset.get("annotations", []):
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    return evaluator
