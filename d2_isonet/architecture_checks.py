"""What a network of options cannot be: one table of pairs of keys that exclude each other."""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

from detectron2.config import CfgNode

from .decoupled import MAGNITUDES
from .layers import ACTIVATIONS
from .options import check_name
from .resnet import NUM_BLOCKS, STAGES
from .weight_init import FILLS

BLOCKS = ("residual", "fixup", "modified")
CONVS = ("Conv2d", "Decoupled")
NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")

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


_FIXUP, _MODIFIED = (_BLOCK, "fixup"), (_BLOCK, "modified")
_FIXUP_FILL, _ZERO, _SMALL_IMAGES = (_INIT, "fixup"), (_ZERO_NORM, True), (_SMALL, True)
_BIASED = [name for name in ACTIVATIONS if name != "SReLU"]

_CONFLICTS = [
    _Conflict(*row)
    for row in (
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
        (*_MODIFIED, _INIT, _is("fixup"), "it has its own: INIT must be another, say 'msra'"),
        (*_FIXUP_FILL, _NORM, bool, "a norm undoes it: NORM must be '', or INIT another"),
        (*_FIXUP_FILL, _SHORTCUT, operator.not_, "zeros need a shortcut: SHORTCUT must be True"),
        (*_FIXUP_FILL, _SCALE, _is(0), "zero times zero never trains: use null or 1.0"),
        (*_FIXUP_FILL, _CONV, _is_not("Conv2d"), "decoupled filters have no length: use 'msra'"),
        (*_ZERO, _NORM, operator.not_, f"there is no norm: use one of {list(NORMS[1:])}"),
        (*_ZERO, _SHORTCUT, operator.not_, "a zero needs a shortcut: SHORTCUT must be True"),
        (*_ZERO, _SCALE, _is(0), "zero times zero never trains: use null or 1.0"),
        (*_SMALL_IMAGES, _GROUPS, _is_not(1), "basic blocks have one group: use 1"),
        (*_SMALL_IMAGES, _DILATION, _is_not(1), "there is no res5: use 1"),
        (_SCALE, 0, _SHORTCUT, operator.not_, "nothing would pass: use null or 1.0, or shortcuts"),
    )
]


def check_architecture(cfg: CfgNode) -> None:
    """Raise ValueError naming the keys, their values and the remedy if cfg asks the impossible."""
    for key, choices in (
        (_NORM, NORMS),
        (_ACTIVATION, ACTIVATIONS),
        (_INIT, FILLS),
        (_BLOCK, BLOCKS),
        (_CONV, CONVS),
    ):
        check_name(key, _value(cfg, key), choices)
    for key, value, other, excluded, remedy in _CONFLICTS:
        if _value(cfg, key) == value and excluded(_value(cfg, other)):
            raise conflict(cfg, key, other, remedy)
    _check_depth(cfg)
    _check_stages(cfg)
    _check_norm_groups(cfg)
    if cfg.MODEL.ISONET.CONV == "Decoupled":
        _check_decoupled(cfg)


def conflict(cfg: CfgNode, key: str, other: str, remedy: str) -> ValueError:
    """The error that two keys exclude each other with the values they have."""
    return ValueError(
        f"{key} is {_value(cfg, key)!r} with {other} {_value(cfg, other)!r}; {remedy}"
    )


def _value(cfg: CfgNode, key: str):
    return functools.reduce(getattr, key.split("."), cfg)


def _check_depth(cfg: CfgNode) -> None:
    depth, small = cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.ISONET.SMALL_IMAGES
    if not small and depth not in NUM_BLOCKS:
        raise ValueError(
            f"MODEL.RESNETS.DEPTH is {depth}; it must be one of {sorted(NUM_BLOCKS)}, or 6n + 2 "
            "with MODEL.ISONET.SMALL_IMAGES True"
        )
    if small and (depth < 8 or depth % 6 != 2):
        below = 6 * ((depth - 2) // 6) + 2
        near = " or ".join(str(legal) for legal in (below, below + 6) if legal >= 8) or "8"
        raise conflict(cfg, _SMALL, _DEPTH, f"DEPTH must be 6n + 2 (8, 14, 20, ...): use {near}")
    groups = cfg.MODEL.RESNETS.NUM_GROUPS
    if depth < 50 and groups != 1:
        raise ValueError(
            f"{_GROUPS} is {groups} at depth {depth}; basic blocks have one group, use 1 or a "
            "depth of 50 and more"
        )


def _check_stages(cfg: CfgNode) -> None:
    resnets, small = cfg.MODEL.RESNETS, cfg.MODEL.ISONET.SMALL_IMAGES
    if resnets.RES5_DILATION not in (1, 2):
        raise ValueError(f"MODEL.RESNETS.RES5_DILATION is {resnets.RES5_DILATION}; use 1 or 2")
    if any(resnets.DEFORM_ON_PER_STAGE):
        raise ValueError(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE is set; isometric blocks have no deformable form, "
            "leave it all False"
        )
    legal = list(STAGES[:-1] if small else STAGES)
    if not resnets.OUT_FEATURES or not set(resnets.OUT_FEATURES) <= set(legal):
        raise ValueError(
            f"MODEL.RESNETS.OUT_FEATURES is {resnets.OUT_FEATURES}; with {_SMALL} {small} it must "
            f"be some of {legal}"
        )
    widths = resnets.STEM_OUT_CHANNELS, res2_out_channels(cfg)
    if small and widths[0] != widths[1]:
        stem, res2 = "MODEL.RESNETS.STEM_OUT_CHANNELS", "MODEL.RESNETS.RES2_OUT_CHANNELS"
        raise conflict(cfg, stem, res2, f"with {_SMALL} True they must be equal (16 at CIFAR)")


def _check_norm_groups(cfg: CfgNode) -> None:
    resnets, groups = cfg.MODEL.RESNETS, cfg.MODEL.ISONET.NORM_GROUPS
    widths = {resnets.STEM_OUT_CHANNELS, res2_out_channels(cfg)}
    if resnets.DEPTH >= 50 and not cfg.MODEL.ISONET.SMALL_IMAGES:
        widths.add(resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP)
    if resnets.NORM == "GN" and (groups < 1 or any(width % groups for width in widths)):
        raise conflict(
            cfg,
            "MODEL.ISONET.NORM_GROUPS",
            _NORM,
            f"it must divide every width, here {sorted(widths)} and their doubles",
        )


# detectron2's default of RES2_OUT_CHANNELS: a bottleneck's width, and wrong for a basic block.
_BOTTLENECK_RES2_OUT_CHANNELS = 256


def res2_out_channels(cfg: CfgNode) -> int:
    """The width of res2; a basic block's is the stem's where cfg has detectron2's default."""
    resnets = cfg.MODEL.RESNETS
    basic = resnets.DEPTH < 50 or cfg.MODEL.ISONET.SMALL_IMAGES
    if basic and resnets.RES2_OUT_CHANNELS == _BOTTLENECK_RES2_OUT_CHANNELS:
        return resnets.STEM_OUT_CHANNELS
    return resnets.RES2_OUT_CHANNELS


def _check_decoupled(cfg: CfgNode) -> None:
    # What each value may be is DecoupledConv2d's to say; that an angle alone is no operator is not.
    if not cfg.MODEL.DECOUPLED.MAGNITUDE:
        angular, magnitude = "MODEL.DECOUPLED.ANGULAR", "MODEL.DECOUPLED.MAGNITUDE"
        remedy = f"an angle needs its magnitude: MAGNITUDE must be one of {list(MAGNITUDES)}"
        raise conflict(cfg, angular, magnitude, remedy)
