"""The optimizer with the parameter groups of the papers."""

from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn

from d2_isonet.config.options import check_name
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.stages import res5_of, trunk_of

OPTIMIZERS = ("SGD", "Adam")  # names in torch.optim


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SGD as detectron2 builds it, or Adam, with the parameter groups that the papers need.

    By the exact name of the parameter: SReLU shifts have no weight decay (`shift`), and residual
    scales (`residual_scale`) and the scalar biases of Fixup (`scalar_bias`) have a tenth of the
    learning rate, as in the authors' code. By the layer: no parameter of a decoupled convolution
    decays, because the length of its filters has no effect (the authors' code), and no slope of a
    PReLU, which would decay towards a ReLU (He et al. 2015). SOLVER.BACKBONE_LR_FACTOR multiplies
    the learning rates of the pretrained part.

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
    groups = _scaled(groups, _never_decaying(model), "weight_decay", 0.0)
    if solver.BACKBONE_LR_FACTOR != 1:
        groups = _scaled(groups, _pretrained(model), "lr", solver.BACKBONE_LR_FACTOR)
    # A step of one kernel gives the same numbers in fewer passes. With loss scaling it would
    # unscale inside the kernel, after clipping and after the hooks.
    options = {"fused": not (solver.AMP.ENABLED and solver.AMP.PRECISION == "float16")}
    if solver.OPTIMIZER == "SGD":
        options |= {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
    optimizer = maybe_add_gradient_clipping(cfg, getattr(torch.optim, solver.OPTIMIZER))
    return optimizer(groups, solver.BASE_LR, **options)


def name_of_optimizer(param_groups: list[dict]) -> str:
    """One of OPTIMIZERS; only the groups of Adam have betas."""
    return "Adam" if "betas" in param_groups[0] else "SGD"


def _never_decaying(model: nn.Module) -> Iterator[nn.Parameter]:
    for layer in model.modules():
        if isinstance(layer, DecoupledConv2d | nn.PReLU):
            yield from layer.parameters(recurse=False)


def _pretrained(model: nn.Module) -> Iterator[nn.Parameter]:
    """Of the backbone (of an FPN only bottom_up, the rest is as new as the heads), and of
    roi_heads.res5 of C4, the last stage of the same network.
    """
    prefix, trunk = trunk_of(model)
    for part in (trunk if prefix else None, res5_of(model)):
        if part is not None:
            yield from part.parameters()


def _scaled(
    groups: list[dict], parameters: Iterator[nn.Parameter], key: str, factor: float
) -> list[dict]:
    """The groups, each with those of `parameters` in a group of their own, its `key` * factor."""
    chosen, divided = set(map(id, parameters)), []
    for group in groups:
        for inside in (False, True):
            members = [p for p in group["params"] if (id(p) in chosen) == inside]
            if members:
                value = group[key] * factor if inside else group[key]
                divided.append({**group, "params": members, key: value})
    return divided
