"""From a config to one that this machine can run: checked, scaled, frozen, with logs open."""

import argparse
import difflib
import logging

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, default_setup
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from .amp import check_precision
from .elastic import resume_if_restarted
from .solver import epochs_to_iterations

logger = logging.getLogger(__name__)


def falls_back_to_cpu(cfg: CfgNode) -> bool:
    """Set cfg.MODEL.DEVICE to "cpu" where it asks for a GPU and there is none."""
    falls_back = cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available()
    if falls_back:
        cfg.MODEL.DEVICE = "cpu"
    return falls_back


def check_names(cfg: CfgNode) -> None:
    """Raise ValueError for a part of the model that nobody registered."""
    asked = {
        "MODEL.META_ARCHITECTURE": (cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY),
        "MODEL.BACKBONE.NAME": (cfg.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY),
        "MODEL.ROI_HEADS.NAME": (cfg.MODEL.ROI_HEADS.NAME, ROI_HEADS_REGISTRY),
    }
    for key, (name, registry) in asked.items():
        if name not in registry:
            near = difflib.get_close_matches(name, [n for n, _ in registry], n=1)
            hint = f"; did you mean {near[0]}?" if near else "; import the package that defines it"
            raise ValueError(f"{key} is {name!r}, which nobody registered{hint}")


def check_detector(cfg: CfgNode) -> None:
    """Raise ValueError where cfg asks a detector for what an ImageClassifier alone does."""
    asked = {
        "INPUT.CLASSIFICATION.MIXUP_ALPHA": (cfg.INPUT.CLASSIFICATION.MIXUP_ALPHA, 0.0),
        "SOLVER.ADVERSARIAL.ATTACK": (cfg.SOLVER.ADVERSARIAL.ATTACK, ""),
    }
    for key, (value, none) in asked.items():
        if value != none:
            raise ValueError(
                f"{key} is {value!r} with MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE!r}; "
                f"only ImageClassifier has it (tools/pretrain_imagenet.py): set it to {none!r}"
            )


def scale_to_processes(cfg: CfgNode) -> CfgNode:
    """`cfg` with batch, learning rate and schedule for the processes at hand.

    They are given for SOLVER.REFERENCE_WORLD_SIZE processes (0: for any number, as they stand).

    Raises:
        ValueError: the batch cannot be shared by those, or by these.
    """
    world_size, reference = comm.get_world_size(), cfg.SOLVER.REFERENCE_WORLD_SIZE
    images = cfg.SOLVER.IMS_PER_BATCH
    if reference and images % reference:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {images}, for SOLVER.REFERENCE_WORLD_SIZE {reference} "
            f"processes: give a multiple of {reference}, which is rescaled to the {world_size} at "
            "hand, or SOLVER.REFERENCE_WORLD_SIZE 0 to have all numbers taken as they stand"
        )
    cfg = DefaultTrainer.auto_scale_workers(cfg, world_size)
    images = cfg.SOLVER.IMS_PER_BATCH
    if images < 1 or images % world_size:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {images}; it must be a positive multiple of the "
            f"{world_size} processes"
        )
    return cfg


def finish_setup(cfg: CfgNode, args: argparse.Namespace, num_training_images: int = 0) -> CfgNode:
    """Scale to the processes at hand, check, freeze, open the logs and seed.

    Args:
        num_training_images: needed where the schedule is in epochs (SOLVER.MAX_EPOCHS).
    """
    on_cpu_instead, restarted = falls_back_to_cpu(cfg), resume_if_restarted(args, cfg.OUTPUT_DIR)
    check_names(cfg)
    check_precision(cfg.SOLVER.AMP.PRECISION)
    cfg = epochs_to_iterations(scale_to_processes(cfg), num_training_images)
    cfg.freeze()
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="d2_isonet")
    if restarted:
        logger.info(restarted)
    if on_cpu_instead:
        logger.warning("There is no CUDA device: running on the CPU (MODEL.DEVICE cpu)")
    return cfg
