"""What a config asks for that this machine, or any, cannot do; nothing is built for it."""

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.utils import comm

from d2_isonet.config.options import check_range
from d2_isonet.utils.messages import UserError


def scale_to_processes(cfg: CfgNode) -> CfgNode:
    """`cfg` with batch, learning rate and schedule for the processes at hand.

    They are given for SOLVER.REFERENCE_WORLD_SIZE processes (0: for any number, as they stand).

    Raises:
        UserError: the batch cannot be shared by those, or by these.
    """
    world_size, reference = comm.get_world_size(), cfg.SOLVER.REFERENCE_WORLD_SIZE
    images = cfg.SOLVER.IMS_PER_BATCH
    if reference and images % reference:
        raise UserError(
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
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {images}",
            f"it must be a positive multiple of the {world_size} processes{parts}",
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


def epochs_to_iterations(cfg: CfgNode, num_images: int) -> CfgNode:
    """A copy of `cfg` whose schedule in epochs is one in iterations; `cfg` itself without one.

    One epoch is num_images / SOLVER.IMS_PER_BATCH iterations, rounded up; the classifier is
    evaluated and saved after each.

    Args:
        num_images: size of the training set.

    Raises:
        UserError: there is such a schedule and num_images is 0, its size unknown.
    """
    if cfg.SOLVER.MAX_EPOCHS <= 0:
        return cfg
    if num_images < 1:
        raise UserError(
            f"SOLVER.MAX_EPOCHS is {cfg.SOLVER.MAX_EPOCHS}, but epochs are for pretraining",
            "give a detector SOLVER.MAX_ITER and set MAX_EPOCHS 0",
        )
    cfg = cfg.clone()
    cfg.defrost()
    epoch = -(-num_images // cfg.SOLVER.IMS_PER_BATCH)
    cfg.SOLVER.MAX_ITER = cfg.SOLVER.MAX_EPOCHS * epoch
    steps = [step for step in cfg.SOLVER.EPOCH_STEPS if step < cfg.SOLVER.MAX_EPOCHS]
    cfg.SOLVER.STEPS = tuple(step * epoch for step in steps)
    cfg.SOLVER.WARMUP_ITERS = min(round(cfg.SOLVER.WARMUP_EPOCHS * epoch), cfg.SOLVER.MAX_ITER)
    cfg.SOLVER.CHECKPOINT_PERIOD = cfg.TEST.EVAL_PERIOD = epoch
    return cfg
