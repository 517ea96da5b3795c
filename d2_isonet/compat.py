"""The differences between detectron2 v0.6 and HEAD, and what neither does on a CPU."""

import logging
import os
import socket
from collections.abc import Callable
from urllib.parse import urlparse

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .annotation_repair import fill_in
from .coco_evaluation import FastCOCOEvaluator
from .coco_truth import make_coco_json

logger = logging.getLogger(__name__)


def launch(
    main: Callable,
    num_processes: int,
    *,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    args: tuple = (),
) -> None:
    """Run `main(*args)` in every process: under torchrun, on GPUs (NCCL) or on CPUs (gloo).

    Under torchrun (RANK and WORLD_SIZE set) this process is already one of them. On CPUs
    detectron2 v0.6 refuses, so the processes are started here.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        _run_worker(main, args, int(os.environ.get("LOCAL_WORLD_SIZE", 1)), "env://")
    elif num_processes * num_machines == 1:
        main(*args)
    elif torch.cuda.is_available():
        detectron2_launch(main, num_processes, num_machines, machine_rank, dist_url, args)
    else:
        if num_machines == 1:
            dist_url = f"tcp://127.0.0.1:{_free_port()}"
        mp.spawn(
            _cpu_worker,
            nprocs=num_processes,
            args=(main, args, num_processes, num_machines, machine_rank, dist_url),
        )


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _cpu_worker(local_rank, main, args, num_processes, num_machines, machine_rank, dist_url):
    torch.set_num_threads(max(1, torch.get_num_threads() // num_processes))
    rank = machine_rank * num_processes + local_rank
    _run_worker(
        main, args, num_processes, dist_url, rank=rank, world_size=num_machines * num_processes
    )


def _run_worker(main, args, processes_per_machine, init_method, **rank_and_size) -> None:
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group("nccl" if on_gpu else "gloo", init_method, **rank_and_size)
    _create_local_process_group(processes_per_machine)
    comm.synchronize()
    main(*args)
    dist.destroy_process_group()  # not after an error: it could wait for the others for ever


def _create_local_process_group(processes_per_machine: int) -> None:
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


def load_file(checkpointer: Checkpointer, path: str, checkpointables: list[str] | None) -> dict:
    """`checkpointer.load` for a name that HEAD takes for a query, as "what?.pth"."""
    checkpointer._parsed_url_during_load = urlparse("")  # of v0.6, nobody reads it
    try:
        return Checkpointer.load(checkpointer, path, checkpointables)
    finally:
        checkpointer._parsed_url_during_load = None


def coco_evaluator(dataset_name: str, output_dir: str) -> FastCOCOEvaluator:
    """A COCOEvaluator with pycocotools' numbers; it needs no compiled detectron2.

    What annotation tools leave out and pycocotools needs is filled in, see `fill_in`. A data set
    of Python's is converted anew where it has changed.
    """
    make_coco_json(dataset_name, output_dir)
    evaluator = FastCOCOEvaluator(dataset_name, output_dir=output_dir, use_fast_impl=False)
    annotations = evaluator._coco_api.dataset.get("annotations", [])
    for annotation in annotations:
        fill_in(annotation)
    if not annotations:
        logger.warning(
            f"Data set {dataset_name!r} has no ground truth, {evaluator._metadata.json_file} no "
            f"annotations: predictions are written to {output_dir}, AP is nan or left out"
        )
    return evaluator
