"""What a config asks for that this machine, or any, cannot do; nothing is built for it."""

import math

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.utils import comm

from d2_isonet.config.options import check_range
from d2_isonet.utils.messages import nearest


def check_device(cfg: CfgNode) -> None:
    """Raise ValueError where MODEL.DEVICE is no device, or a GPU that is not there."""
    name = cfg.MODEL.DEVICE
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"MODEL.DEVICE is {name!r}; it must be 'cpu', 'cuda' or 'cuda:N'"
        ) from error
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ValueError(f"MODEL.DEVICE is {name!r}; this machine has {gpus} GPUs, from 0")


def check_names(cfg: CfgNode) -> None:
    """Raise ValueError for a part of the model that nobody registered."""
    asked = {
        "MODEL.META_ARCHITECTURE": (cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY),
        "MODEL.BACKBONE.NAME": (cfg.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY),
        "MODEL.ROI_HEADS.NAME": (cfg.MODEL.ROI_HEADS.NAME, ROI_HEADS_REGISTRY),
    }
    for key, (name, registry) in asked.items():
        if name not in registry:
            known = [registered for registered, _ in registry]
            hint = nearest(name, known, "; import the package that defines it")
            raise ValueError(f"{key} is {name!r}, which nobody registered{hint}")


def check_pixels(cfg: CfgNode) -> None:
    """Raise ValueError where images cannot be normalized by MODEL.PIXEL_MEAN and PIXEL_STD."""
    mean, std, order = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD, cfg.INPUT.FORMAT
    channels = 1 if order == "L" else 3  # or more than 3, of a mapper of one's own
    are_numbers = all(isinstance(x, int | float) and math.isfinite(x) for x in [*mean, *std])
    fit = len(mean) == len(std) and (len(mean) == channels or len(mean) > 3)
    if not fit or not are_numbers or min(std) <= 0:
        raise ValueError(
            f"MODEL.PIXEL_MEAN is {mean} and MODEL.PIXEL_STD {std} with INPUT.FORMAT {order!r}; "
            f"each must have {channels} numbers, the deviations above 0"
        )


def check_detector(cfg: CfgNode) -> None:
    """Raise ValueError where cfg asks a detector for what an ImageClassifier alone does."""
    asked = {
        "INPUT.CLASSIFICATION.MIXUP_ALPHA": (cfg.INPUT.CLASSIFICATION.MIXUP_ALPHA, 0.0),
        "SOLVER.ADVERSARIAL.ATTACK": (cfg.SOLVER.ADVERSARIAL.ATTACK, ""),
        "MODEL.CLASSIFIER.DROPOUT": (cfg.MODEL.CLASSIFIER.DROPOUT, 0.0),
        "MODEL.CLASSIFIER.LABEL_SMOOTHING": (cfg.MODEL.CLASSIFIER.LABEL_SMOOTHING, 0.0),
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
    scaled = DefaultTrainer.auto_scale_workers(cfg, world_size)
    _keep_periods(cfg, scaled)
    images, steps = scaled.SOLVER.IMS_PER_BATCH, scaled.SOLVER.ACCUMULATE_STEPS
    check_range("SOLVER.ACCUMULATE_STEPS", steps, 1)
    if images < 1 or images % (world_size * steps):
        parts = f" x {steps} (SOLVER.ACCUMULATE_STEPS)" if steps > 1 else ""
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {images}; it must be a positive multiple of the "
            f"{world_size} processes{parts}"
        )
    return scaled


def _keep_periods(given: CfgNode, scaled: CfgNode) -> None:
    """A period that scaling has rounded to 0 would be none at all: 1 is the shortest."""
    for node, old, key in (
        (scaled.TEST, given.TEST, "EVAL_PERIOD"),
        (scaled.SOLVER, given.SOLVER, "CHECKPOINT_PERIOD"),
        (scaled.SOLVER, given.SOLVER, "MAX_ITER"),
    ):
        if old[key] > 0 and node[key] < 1:
            node[key] = 1


def what_was_scaled(given: CfgNode, scaled: CfgNode) -> str:
    """One line: what the linear rule changed for the processes at hand; "" for nothing.

    A schedule in epochs (SOLVER.MAX_EPOCHS) is not changed: passes over the data stay.
    """
    iterations = ("MAX_ITER", "STEPS", "WARMUP_ITERS", "CHECKPOINT_PERIOD")
    in_epochs = given.SOLVER.MAX_EPOCHS > 0
    keys = ["IMS_PER_BATCH", "BASE_LR", *(() if in_epochs else iterations)]
    pairs = [(f"SOLVER.{key}", given.SOLVER[key], scaled.SOLVER[key]) for key in keys]
    if not in_epochs:
        pairs.append(("TEST.EVAL_PERIOD", given.TEST.EVAL_PERIOD, scaled.TEST.EVAL_PERIOD))
    changes = [f"{key} {old} -> {new}" for key, old, new in pairs if old != new]
    if not changes:
        return ""
    old, new = given.SOLVER.REFERENCE_WORLD_SIZE, scaled.SOLVER.REFERENCE_WORLD_SIZE
    return f"Scaled from {old} processes (SOLVER.REFERENCE_WORLD_SIZE) to {new}: " + ", ".join(
        changes
    )
