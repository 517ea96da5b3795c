"""The optimizer with the paper's parameter groups, and schedules given in epochs."""

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.SGD:
    """SGD as detectron2 builds it, and two groups of its own for an isometric network.

    SReLU shifts have no weight decay, residual scales a tenth of the learning rate (the
    authors' code); both are told by the exact name of the parameter.
    """
    solver = cfg.SOLVER
    parameters = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        overrides={
            "shift": {"weight_decay": solver.WEIGHT_DECAY_SHIFT},
            "residual_scale": {"lr": solver.BASE_LR * solver.RESIDUAL_SCALE_LR_FACTOR},
        },
    )
    sgd = maybe_add_gradient_clipping(cfg, torch.optim.SGD)
    return sgd(parameters, solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)


def epochs_to_iterations(cfg: CfgNode, num_images: int) -> CfgNode:
    """A copy of `cfg` whose schedule in epochs is one in iterations; `cfg` itself without one.

    One epoch is num_images / SOLVER.IMS_PER_BATCH iterations, rounded up; the classifier is
    evaluated and saved after each.

    Args:
        num_images: size of the training set.

    Raises:
        ValueError: there is such a schedule and num_images is 0, its size unknown.
    """
    if cfg.SOLVER.MAX_EPOCHS <= 0:
        return cfg
    if num_images < 1:
        raise ValueError(
            f"SOLVER.MAX_EPOCHS is {cfg.SOLVER.MAX_EPOCHS}, but epochs are for pretraining; give "
            "a detector SOLVER.MAX_ITER and set MAX_EPOCHS 0"
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
