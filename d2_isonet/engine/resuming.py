"""Lets a resumed training continue as the interrupted one would: seed, data, hooks."""

import logging
import os

from detectron2.config import CfgNode
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.utils import comm

from d2_isonet.engine.hooks.best_checkpoint import BestCheckpoint
from d2_isonet.utils.messages import UserError

logger = logging.getLogger(__name__)


def resume_message(path: str, start_iter: int, max_iter: int) -> str:
    """One line for the log. `path`: the checkpoint, "" for none."""
    if not path:
        return "--resume: there is no checkpoint in OUTPUT_DIR; starting at iteration 0"
    name = os.path.basename(path)
    if start_iter >= max_iter:
        return (
            f"--resume: {name} has finished its {start_iter} iterations (SOLVER.MAX_ITER "
            f"{max_iter}): nothing is left to train; raise SOLVER.MAX_ITER to continue"
        )
    return f"--resume: continuing from {name} at iteration {start_iter} of {max_iter}"


def data_order(trainer) -> dict:
    """The values that determine the order of the training images, besides the iteration."""
    return {
        "seed": trainer.seed,
        "processes": comm.get_world_size(),
        "images_per_batch": int(trainer.cfg.SOLVER.IMS_PER_BATCH),
        **getattr(trainer._trainer.data_loader, "order_options", {}),
    }


def resumed_seed(trainer, saved: dict | None) -> int:
    """The seed to continue with; warns if the training cannot continue exactly.

    Args:
        saved: `data_order` of the checkpoint; None if plain detectron2 wrote it.
    """
    if saved is None:
        logger.warning(
            "The checkpoint does not say in what order its training saw the images; from now on "
            f"SEED {trainer.seed} determines the order"
        )
        return trainer.seed
    if type(saved["seed"]) is not int or saved["seed"] < 0:
        what = f"the checkpoint's seed is {saved['seed']!r}, no whole number from 0"
        raise UserError(what, "resume from another checkpoint")
    now = {**data_order(trainer), "seed": saved["seed"]}
    differences = [f"{k} {saved.get(k)} -> {now[k]}" for k in now if saved.get(k) != now[k]]
    if differences:
        logger.warning(
            f"Resuming with a different setup ({', '.join(differences)}): training continues, but "
            "results will differ from an uninterrupted run"
        )
    if trainer.seed != saved["seed"]:
        logger.info(f"Using the checkpoint's seed {saved['seed']}, not {trainer.seed}")
    return saved["seed"]


def start_data(trainer) -> None:
    """Start the loader at the batch of trainer.start_iter; warns if it cannot."""
    loader = trainer._trainer.data_loader
    if hasattr(loader, "start_at"):
        loader.start_at(trainer.start_iter, trainer.seed)
    elif trainer.start_iter > 0:
        logger.warning(
            f"build_train_loader made a {type(loader).__name__}, which has no start_at: the "
            "resumed training sees other images than an uninterrupted one"
        )


def catch_up(trainer) -> None:
    """Let the evaluation, and stateful hooks after the checkpoint's, see the last saved step.

    They had not run when the checkpoint was written. Without this, the resumed training would miss
    an evaluation due after that step, and its effects (best result, early stopping). If the record
    of the best checkpoint has that evaluation, it ran before the interruption.
    """
    hooks, start = trainer._hooks, trainer.iter
    saver = next((i for i, x in enumerate(hooks) if isinstance(x, PeriodicCheckpointer)), None)
    known = any(isinstance(x, BestCheckpoint) and x.has_seen(start - 1) for x in hooks)
    if saver is None or known:
        return
    trainer.iter = trainer.storage.iter = start - 1
    for hook in hooks[saver + 1 :]:
        if isinstance(hook, EvalHook) or hook.state_dict():
            hook.after_step()
    trainer.iter = trainer.storage.iter = start


def settle_seed(cfg: CfgNode) -> CfgNode:
    """`cfg`; if SEED is negative, a copy with a seed drawn for all processes."""
    if cfg.SEED >= 0:
        return cfg
    frozen, cfg = cfg.is_frozen(), cfg.clone()
    cfg.defrost()
    cfg.SEED = int(comm.shared_random_seed())
    logger.info(f"SEED is -1: drew {cfg.SEED} for this run")
    if frozen:
        cfg.freeze()
    return cfg
