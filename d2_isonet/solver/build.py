"""The optimizer with the papers' parameter groups, and schedules given in epochs."""

from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn

from d2_isonet.config.options import check_name
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.stages import res5_of, trunk_of

OPTIMIZERS = ("SGD", "Adam")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SGD as detectron2 builds it, or Adam, with groups of its own for the networks of the papers.

    Told by the exact name of the parameter: SReLU shifts have no weight decay, residual scales and
    Fixup's scalar biases a tenth of the learning rate (the authors' codes). Told by the layer:
    nothing of a decoupled convolution decays, its filters have no length that counts (the
    authors' code), nor a PReLU's slope, which would decay towards a ReLU (He et al. 2015).
    SOLVER.BACKBONE_LR_FACTOR multiplies the rates of what came pretrained.

    Raises:
        UserError: SOLVER.OPTIMIZER is neither "SGD" nor "Adam".
    """
    solver = cfg.SOLVER
    check_name("SOLVER.OPTIMIZER", solver.OPTIMIZER, OPTIMIZERS)
    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        overrides={
            "shift": {"weight_decay": solver.WEIGHT_DECAY_SHIFT},
            "residual_scale": {"lr": solver.BASE_LR * solver.RESIDUAL_SCALE_LR_FACTOR},
            "scalar_bias": {"lr": solver.BASE_LR * solver.SCALAR_BIAS_LR_FACTOR},
        },
    )
    groups = list(_without_decay(groups, model))
    groups = list(_with_backbone_rate(groups, model, solver.BACKBONE_LR_FACTOR))
    fused = _may_be_fused(cfg)
    if solver.OPTIMIZER == "Adam":
        adam = maybe_add_gradient_clipping(cfg, torch.optim.Adam)
        return adam(groups, solver.BASE_LR, fused=fused)
    sgd = maybe_add_gradient_clipping(cfg, torch.optim.SGD)
    momentum = {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
    return sgd(groups, solver.BASE_LR, **momentum, fused=fused)


def _may_be_fused(cfg: CfgNode) -> bool:
    """Whether torch's one-kernel step, the same numbers in fewer passes, may be taken.

    With loss scaling it would unscale inside the kernel, behind clipping and what the hooks add.
    """
    return not (cfg.SOLVER.AMP.ENABLED and cfg.SOLVER.AMP.PRECISION == "float16")


def name_of_optimizer(param_groups: list[dict]) -> str:
    """One of OPTIMIZERS, told by what only Adam keeps for its groups."""
    return "Adam" if "betas" in param_groups[0] else "SGD"


def _without_decay(groups: list[dict], model: nn.Module) -> Iterator[dict]:
    """The groups, each with what must not decay taken out into a group of its own."""
    layers = (m for m in model.modules() if isinstance(m, DecoupledConv2d | nn.PReLU))
    exempt = {id(p) for layer in layers for p in layer.parameters(recurse=False)}
    for group, is_exempt in _divided(groups, exempt):
        yield {**group, "weight_decay": 0.0} if is_exempt else group


def _with_backbone_rate(groups: list[dict], model: nn.Module, factor: float) -> Iterator[dict]:
    """The groups, each with the backbone's parameters in a group of its own, lr times `factor`.

    Of an FPN that is bottom_up: its other convolutions are as new as the heads. C4's
    roi_heads.res5 is the last stage of the same pretrained network.
    """
    prefix, trunk = trunk_of(model)
    parts = (trunk if prefix else None, res5_of(model))
    pretrained = {id(p) for part in parts if part is not None for p in part.parameters()}
    for group, is_pretrained in _divided(groups, pretrained if factor != 1 else set()):
        yield {**group, "lr": group["lr"] * factor} if is_pretrained else group


def _divided(groups: list[dict], chosen: set[int]) -> Iterator[tuple[dict, bool]]:
    """Each group's part outside and its part inside `chosen`, ids of parameters, unless empty."""
    for group in groups:
        for inside in (False, True):
            members = [p for p in group["params"] if (id(p) in chosen) == inside]
            if members:
                yield {**group, "params": members}, inside
