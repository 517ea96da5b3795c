"""One table of pairs of keys whose values exclude each other."""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

from detectron2.config import CfgNode

from d2_isonet.config.options import CNN9_BACKBONE, NORMS, conflict, value_of
from d2_isonet.layers.activation import ACTIVATIONS

_NORM, _DEPTH, _GROUPS, _DILATION = (
    f"MODEL.RESNETS.{key}" for key in ("NORM", "DEPTH", "NUM_GROUPS", "RES5_DILATION")
)
_BLOCK, _CONV, _INIT, _ACTIVATION, _SHORTCUT, _SCALE = (
    f"MODEL.ISONET.{key}"
    for key in ("BLOCK", "CONV", "INIT", "ACTIVATION", "SHORTCUT", "RESIDUAL_SCALE")
)
_SMALL, _SCALE_SHAPE, _ZERO_NORM = (
    f"MODEL.ISONET.{key}" for key in ("SMALL_IMAGES", "RESIDUAL_SCALE_SHAPE", "ZERO_INIT_LAST_NORM")
)


def _is(value: object) -> Callable[[object], bool]:
    return functools.partial(operator.eq, value)


def _is_not(value: object) -> Callable[[object], bool]:
    return functools.partial(operator.ne, value)


class _Conflict(NamedTuple):
    """A key with this value, the values of another that it excludes, and what to set instead."""

    key: str
    value: object
    other: str
    excluded: Callable[[object], bool]
    remedy: str


_CNN9 = ("MODEL.BACKBONE.NAME", CNN9_BACKBONE)
_FIXUP, _MODIFIED = (_BLOCK, "fixup"), (_BLOCK, "modified")
_FIXUP_FILL, _ZERO, _SMALL_IMAGES = (_INIT, "fixup"), (_ZERO_NORM, True), (_SMALL, True)
_CHECKPOINTING = ("MODEL.BACKBONE.CHECKPOINTING", True)
_FROM_CONV2D = ("MODEL.DECOUPLED.FROM_CONV2D", True)
_BIASED = [name for name in ACTIVATIONS if name != "SReLU"]
_WITHOUT_STATISTICS = [norm for norm in NORMS if norm in ("", "FrozenBN", "GN")]
_LEARNED_NORMS = [norm for norm in NORMS if norm not in ("", "FrozenBN")]
_TWICE = "recomputed batches would count twice in running statistics"


def _keeps_statistics(norm: str) -> bool:
    return norm not in _WITHOUT_STATISTICS


# A key that a network does without is refused where it differs from its default or from what the
# network's yaml inherits: nobody has asked for those.
_CONFLICTS = [
    _Conflict(*row)
    for row in (
        (*_CNN9, _BLOCK, _is_not("residual"), "it has no blocks: BLOCK must be 'residual'"),
        (*_CNN9, _SHORTCUT, operator.not_, "it has no shortcut to leave out: use True"),
        (*_CNN9, _SCALE, bool, "it has no residual branch: RESIDUAL_SCALE must be null"),
        (*_CNN9, _SCALE_SHAPE, _is_not("block"), "it has no scale: use 'block', the default"),
        (*_CNN9, _ZERO_NORM, bool, "zeros need a shortcut: ZERO_INIT_LAST_NORM must be False"),
        (*_CNN9, _INIT, _is("fixup"), "zeros need a shortcut: INIT must be another, say 'msra'"),
        (*_CNN9, _DEPTH, _is_not(50), "it has nine layers: leave DEPTH at its default, 50"),
        (*_CNN9, _GROUPS, _is_not(1), "its convolutions have one group: use 1"),
        (*_CNN9, _DILATION, _is_not(1), "there is no res5: use 1"),
        (*_FIXUP, _NORM, bool, "Fixup is there to do without: NORM must be ''"),
        (*_FIXUP, _SHORTCUT, operator.not_, "Fixup is residual: SHORTCUT must be True"),
        (*_FIXUP, _SCALE, operator.not_, "the scale must not be null or 0: use 1.0"),
        (*_FIXUP, _SCALE_SHAPE, _is_not("block"), "Fixup has one scale a block: use 'block'"),
        (*_FIXUP, _ACTIVATION, _is("SReLU"), f"scalar biases are its shift: use one of {_BIASED}"),
        (*_FIXUP, _CONV, _is_not("Conv2d"), "CONV must be 'Conv2d'"),
        (*_FIXUP, _INIT, _is_not("fixup"), "INIT must be 'fixup'"),
        (*_MODIFIED, _DEPTH, _is_not(18), "DEPTH must be 18"),
        (*_MODIFIED, _SMALL, bool, "SMALL_IMAGES must be False, or BLOCK 'residual'"),
        (*_MODIFIED, _SHORTCUT, operator.not_, "SHORTCUT must be True"),
        (*_MODIFIED, _SCALE, _is_not(None), "it has no scale: RESIDUAL_SCALE must be null"),
        (*_MODIFIED, _ZERO_NORM, bool, "ZERO_INIT_LAST_NORM must be False"),
        (*_MODIFIED, _INIT, _is_not("msra"), "it has its own: leave INIT 'msra', as in its yaml"),
        (*_FIXUP_FILL, _NORM, bool, "a norm undoes it: NORM must be '', or INIT another"),
        (*_FIXUP_FILL, _SHORTCUT, operator.not_, "zeros need a shortcut: SHORTCUT must be True"),
        (*_FIXUP_FILL, _SCALE, _is(0), "zero times zero never trains: use null or 1.0"),
        (*_FIXUP_FILL, _CONV, _is_not("Conv2d"), "decoupled filters have no length: use 'msra'"),
        (*_ZERO, _NORM, operator.not_, f"there is no norm: use one of {_LEARNED_NORMS}"),
        (*_ZERO, _SHORTCUT, operator.not_, "a zero needs a shortcut: SHORTCUT must be True"),
        (*_ZERO, _SCALE, _is(0), "zero times zero never trains: use null or 1.0"),
        (*_SMALL_IMAGES, _GROUPS, _is_not(1), "basic blocks have one group: use 1"),
        (*_SMALL_IMAGES, _DILATION, _is_not(1), "there is no res5: use 1"),
        (_SCALE, 0, _SHORTCUT, operator.not_, "nothing would pass: use null or 1.0, or shortcuts"),
        (*_CHECKPOINTING, _NORM, _keeps_statistics, f"{_TWICE}: use one of {_WITHOUT_STATISTICS}"),
        (*_FROM_CONV2D, _CONV, _is_not("Decoupled"), "CONV must be 'Decoupled', or it be False"),
    )
]


def check_conflicts(cfg: CfgNode) -> None:
    """Raise ValueError for the first pair of keys whose values exclude each other."""
    for key, value, other, excluded, remedy in _CONFLICTS:
        if value_of(cfg, key) == value and excluded(value_of(cfg, other)):
            raise conflict(cfg, key, other, remedy)
