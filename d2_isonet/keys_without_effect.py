"""Keys that change nothing in the network at hand, though somebody has set them."""

import operator
from collections.abc import Callable
from typing import NamedTuple

from detectron2.config import CfgNode, get_cfg

from d2_isonet.config.defaults import add_isonet_config
from d2_isonet.config.options import value_of
from d2_isonet.layers.decoupled_conv import WITH_BETA, WITH_RADIUS

from .findings import Finding


class _Dependence(NamedTuple):
    """Keys of a section that mean something for some values of another key only."""

    section: str
    keys: tuple[str, ...]
    other: str
    is_used: Callable


_DEPENDENCES = [
    _Dependence(*row)
    for row in (
        ("MODEL.ISONET", ("SHIFT_INIT", "SHIFT_LEARNED"), "MODEL.ISONET.ACTIVATION",
         lambda activation: activation == "SReLU"),
        ("MODEL.ISONET", ("RESIDUAL_SCALE_SHAPE",), "MODEL.ISONET.RESIDUAL_SCALE",
         lambda scale: scale is not None),
        ("MODEL.ISONET", ("NORM_GROUPS",), "MODEL.RESNETS.NORM", lambda norm: norm == "GN"),
        ("MODEL.ISONET", ("ZERO_INIT_LAST_NORM",), "MODEL.RESNETS.NORM",
         lambda norm: norm != "FrozenBN"),
        ("MODEL.DECOUPLED", ("MAGNITUDE", "ANGULAR", "ALPHA", "BETA", "RADIUS", "RADIUS_LEARNED",
         "RADIUS_SCALE", "SIGMOID_K", "SIGMOID_K_LEARNED"), "MODEL.ISONET.CONV",
         lambda conv: conv == "Decoupled"),
        ("MODEL.DECOUPLED", ("SIGMOID_K", "SIGMOID_K_LEARNED"), "MODEL.DECOUPLED.ANGULAR",
         lambda angular: angular == "sigmoid"),
        ("MODEL.DECOUPLED", ("SIGMOID_K",), "MODEL.DECOUPLED.SIGMOID_K_LEARNED", operator.not_),
        ("MODEL.DECOUPLED", ("BETA",), "MODEL.DECOUPLED.MAGNITUDE", WITH_BETA.__contains__),
        ("MODEL.DECOUPLED", ("RADIUS", "RADIUS_LEARNED", "RADIUS_SCALE"),
         "MODEL.DECOUPLED.MAGNITUDE", WITH_RADIUS.__contains__),
    )
]  # fmt: skip


def keys_without_effect(cfg: CfgNode) -> list[Finding]:
    """A warning for each key that differs from its default and changes nothing.

    No error: a yaml whose CONV or NORM is overridden carries the others along.
    """
    defaults = get_cfg()
    add_isonet_config(defaults)
    findings: dict[str, Finding] = {}
    for section, keys, other, is_used in _DEPENDENCES:
        for key in (f"{section}.{name}" for name in keys):
            value = value_of(cfg, key)
            if value != value_of(defaults, key) and not is_used(value_of(cfg, other)):
                what = f"{key} is {value!r}, which changes nothing"
                reason = f"{other} is {value_of(cfg, other)!r}"
                findings.setdefault(key, Finding("warning", "network", what, reason))
    return list(findings.values())
