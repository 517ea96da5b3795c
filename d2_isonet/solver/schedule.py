"""The schedule of a config: scaled to the number of processes, converted from epochs."""

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.utils import comm

from d2_isonet.config.options import check_range
from d2_isonet.utils.messages import UserError


def scale_to_processes(cfg: CfgNode) -> CfgNode:
    """`cfg` with batch size, learning rate and schedule scaled to the number of processes.

    The config gives them for SOLVER.REFERENCE_WORLD_SIZE processes; 0 disables the scaling. The
    rule is linear, as in detectron2's auto_scale_workers.

    Raises:
        UserError: the batch is not a multiple of the reference processes, or after scaling of the
            processes times SOLVER.ACCUMULATE_STEPS.
    """
    world_size, reference = comm.get_world_size(), cfg.SOLVER.REFERENCE_WORLD_SIZE
    images = cfg.SOLVER.IMS_PER_BATCH
    if reference and images % reference:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {images}, for SOLVER.REFERENCE_WORLD_SIZE {reference} "
            "processes",
            f"give a multiple of {reference}, which is rescaled to the {world_size} of this run, "
            "or SOLVER.REFERENCE_WORLD_SIZE 0, which disables the scaling",
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
    """Set periods that scaling has rounded to 0 to 1, because 0 would disable them."""
    for section, key in (
        ("TEST", "EVAL_PERIOD"),
        ("SOLVER", "CHECKPOINT_PERIOD"),
        ("SOLVER", "MAX_ITER"),
    ):
        if given[section][key] > 0:
            scaled[section][key] = max(1, scaled[section][key])


def what_was_scaled(given: CfgNode, scaled: CfgNode) -> str:
    """One line with all keys that `scale_to_processes` changed; "" if it changed none.

    It leaves a schedule in epochs (SOLVER.MAX_EPOCHS) out, which scaling does not change.
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
    """A copy of `cfg` with its schedule in iterations; `cfg` itself if SOLVER.MAX_EPOCHS is 0.

    One epoch has num_images / SOLVER.IMS_PER_BATCH iterations, rounded up. The classifier is
    evaluated and saved after each epoch.

    Args:
        num_images: size of the training set; 0 if it is unknown.

    Raises:
        UserError: SOLVER.MAX_EPOCHS is positive and num_images is 0.
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
