"""What SOLVER and TEST may ask of a training, checked before anything is built."""

from detectron2.config import CfgNode

from .non_finite_recovery import ACTIONS
from .options import check_name
from .wandb_writer import check_wandb


def check_training_options(cfg: CfgNode) -> None:
    """Raise ValueError with the key and its legal values for what no training can do."""
    solver, test = cfg.SOLVER, cfg.TEST
    check_name("SOLVER.NON_FINITE.ACTION", solver.NON_FINITE.ACTION, ACTIONS)
    check_name("TEST.BEST_METRIC_MODE", test.BEST_METRIC_MODE, ("max", "min"))
    ranges = {
        "SOLVER.NON_FINITE.LIMIT": (solver.NON_FINITE.LIMIT, 0, None),
        "SOLVER.EMA_DECAY": (solver.EMA_DECAY, 0, 1),
        "SOLVER.BACKBONE_LR_FACTOR": (solver.BACKBONE_LR_FACTOR, 0, None),
        "TEST.EARLY_STOPPING_PATIENCE": (test.EARLY_STOPPING_PATIENCE, 0, None),
    }
    for key, (value, least, below) in ranges.items():
        if value < least or (below is not None and value >= below):
            limit = "" if below is None else f" and below {below}"
            raise ValueError(f"{key} is {value}; it must be at least {least}{limit}")
    _check_best_metric(cfg)
    check_wandb(cfg)


def _check_best_metric(cfg: CfgNode) -> None:
    test = cfg.TEST
    if test.EARLY_STOPPING_PATIENCE and not test.BEST_METRIC:
        raise ValueError(
            f"TEST.EARLY_STOPPING_PATIENCE is {test.EARLY_STOPPING_PATIENCE}, but TEST.BEST_METRIC "
            "'' names nothing to wait for: set it, e.g. bbox/AP or classification/top1"
        )
    if test.BEST_METRIC and not cfg.DATASETS.TEST:
        raise ValueError(
            f"TEST.BEST_METRIC is {test.BEST_METRIC!r}, but DATASETS.TEST is empty: nothing is "
            "evaluated; name a data set, or set it to ''"
        )
    if test.EARLY_STOPPING_PATIENCE and test.EVAL_PERIOD < 1 and cfg.SOLVER.MAX_EPOCHS < 1:
        raise ValueError(
            f"TEST.EARLY_STOPPING_PATIENCE is {test.EARLY_STOPPING_PATIENCE}, but "
            f"TEST.EVAL_PERIOD is {test.EVAL_PERIOD}: give the iterations between evaluations"
        )
