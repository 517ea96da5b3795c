"""The schedule of a config: scaled to the number of processes, converted from epochs."""

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.utils import comm

from d2_isonet.config.options import check_range, illegal, value_of
from d2_isonet.utils.messages import UserError

_PERIODS = (("TEST", "EVAL_PERIOD"), ("SOLVER", "CHECKPOINT_PERIOD"), ("SOLVER", "MAX_ITER"))


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
        what = f"SOLVER.IMS_PER_BATCH is {images}, for SOLVER.REFERENCE_WORLD_SIZE {reference} "
        remedy = (
            f"give a multiple of {reference}, which is rescaled to the {world_size} of this run, "
        )
        remedy += "or SOLVER.REFERENCE_WORLD_SIZE 0, which disables the scaling"
        raise UserError(f"{what}processes", remedy)
    scaled = DefaultTrainer.auto_scale_workers(cfg, world_size)
    for section, key in _PERIODS:
        if cfg[section][key] > 0:  # scaling rounds to 0, which would disable it
            scaled[section][key] = max(1, scaled[section][key])
    images, steps = scaled.SOLVER.IMS_PER_BATCH, scaled.SOLVER.ACCUMULATE_STEPS
    check_range("SOLVER.ACCUMULATE_STEPS", steps, 1)
    if images < 1 or images % (world_size * steps):
        parts = f" x {steps} (SOLVER.ACCUMULATE_STEPS)" if steps > 1 else ""
        remedy = f"it must be a positive multiple of the {world_size} processes{parts}"
        raise illegal(scaled, "SOLVER.IMS_PER_BATCH", remedy)
    return scaled


def what_was_scaled(given: CfgNode, scaled: CfgNode) -> str:
    """One line with all keys that `scale_to_processes` changed; "" if it changed none.

    It leaves a schedule in epochs (SOLVER.MAX_EPOCHS) out, which scaling does not change.
    """
    keys = ["SOLVER.IMS_PER_BATCH", "SOLVER.BASE_LR"]
    if given.SOLVER.MAX_EPOCHS <= 0:
        iterations = ("MAX_ITER", "STEPS", "WARMUP_ITERS", "CHECKPOINT_PERIOD")
        keys += [*(f"SOLVER.{key}" for key in iterations), "TEST.EVAL_PERIOD"]
    pairs = [(key, value_of(given, key), value_of(scaled, key)) for key in keys]
    changes = ", ".join(f"{key} {old} -> {new}" for key, old, new in pairs if old != new)
    old, new = given.SOLVER.REFERENCE_WORLD_SIZE, scaled.SOLVER.REFERENCE_WORLD_SIZE
    start = f"Scaled from {old} processes (SOLVER.REFERENCE_WORLD_SIZE) to {new}: "
    return changes and start + changes


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
        what = f"SOLVER.MAX_EPOCHS is {cfg.SOLVER.MAX_EPOCHS}, but epochs are for pretraining"
        raise UserError(what, "give a detector SOLVER.MAX_ITER and set MAX_EPOCHS 0")
    cfg = cfg.clone()
    cfg.defrost()
    epoch = -(-num_images // cfg.SOLVER.IMS_PER_BATCH)
    cfg.SOLVER.MAX_ITER = cfg.SOLVER.MAX_EPOCHS * epoch
    steps = [step for step in cfg.SOLVER.EPOCH_STEPS if step < cfg.SOLVER.MAX_EPOCHS]
    cfg.SOLVER.STEPS = tuple(step * epoch for step in steps)
    cfg.SOLVER.WARMUP_ITERS = min(round(cfg.SOLVER.WARMUP_EPOCHS * epoch), cfg.SOLVER.MAX_ITER)
    cfg.SOLVER.CHECKPOINT_PERIOD = cfg.TEST.EVAL_PERIOD = epoch
    return cfg
