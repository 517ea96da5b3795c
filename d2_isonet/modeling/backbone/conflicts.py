"""One table of pairs of keys whose values exclude each other."""

from collections.abc import Callable
from operator import not_
from typing import Any

from detectron2.config import CfgNode

from d2_isonet.config.options import CNN9_BACKBONE, NORMS, conflict, value_of
from d2_isonet.layers.activation import ACTIVATIONS

_BIASED = [name for name in ACTIVATIONS if name != "SReLU"]
_WITHOUT_STATISTICS = [norm for norm in NORMS if norm in ("", "FrozenBN", "GN")]
_LEARNED_NORMS = [norm for norm in NORMS if norm not in ("", "FrozenBN")]

# For a key with this value: other keys, whether that key's value x is excluded, and the remedy. A
# key that a network does not use is refused only if it differs from its default and from what the
# network's yaml inherits: nobody set those.
_CONFLICTS: dict[tuple[str, object], list[tuple[str, Callable[[Any], bool], str]]] = {
    ("MODEL.BACKBONE.NAME", CNN9_BACKBONE): [
        ("MODEL.ISONET.BLOCK", lambda x: x != "residual",
         "it has no blocks: BLOCK must be 'residual'"),
        ("MODEL.ISONET.SHORTCUT", not_, "it has no shortcut to leave out: use True"),
        ("MODEL.ISONET.RESIDUAL_SCALE", bool,
         "it has no residual branch: RESIDUAL_SCALE must be null"),
        ("MODEL.ISONET.RESIDUAL_SCALE_SHAPE", lambda x: x != "block",
         "it has no scale: use 'block', the default"),
        ("MODEL.ISONET.ZERO_INIT_LAST_NORM", bool,
         "zeros need a shortcut: ZERO_INIT_LAST_NORM must be False"),
        ("MODEL.ISONET.INIT", lambda x: x == "fixup",
         "zeros need a shortcut: INIT must be another, say 'msra'"),
        ("MODEL.RESNETS.DEPTH", lambda x: x != 50,
         "it has nine layers: leave DEPTH at its default, 50"),
        ("MODEL.RESNETS.NUM_GROUPS", lambda x: x != 1, "its convolutions have one group: use 1"),
        ("MODEL.RESNETS.RES5_DILATION", lambda x: x != 1, "there is no res5: use 1"),
    ],
    ("MODEL.ISONET.BLOCK", "fixup"): [
        ("MODEL.RESNETS.NORM", bool, "Fixup replaces the norm: NORM must be ''"),
        ("MODEL.ISONET.SHORTCUT", not_, "Fixup is residual: SHORTCUT must be True"),
        ("MODEL.ISONET.RESIDUAL_SCALE", not_, "the scale must not be null or 0: use 1.0"),
        ("MODEL.ISONET.RESIDUAL_SCALE_SHAPE", lambda x: x != "block",
         "Fixup has one scale a block: use 'block'"),
        ("MODEL.ISONET.ACTIVATION", lambda x: x == "SReLU",
         f"scalar biases are its shift: use one of {_BIASED}"),
        ("MODEL.ISONET.CONV", lambda x: x != "Conv2d", "CONV must be 'Conv2d'"),
        ("MODEL.ISONET.INIT", lambda x: x != "fixup", "INIT must be 'fixup'"),
    ],
    ("MODEL.ISONET.BLOCK", "modified"): [
        ("MODEL.RESNETS.DEPTH", lambda x: x != 18, "DEPTH must be 18"),
        ("MODEL.ISONET.SMALL_IMAGES", bool, "SMALL_IMAGES must be False, or BLOCK 'residual'"),
        ("MODEL.ISONET.SHORTCUT", not_, "SHORTCUT must be True"),
        ("MODEL.ISONET.RESIDUAL_SCALE", lambda x: x is not None,
         "it has no scale: RESIDUAL_SCALE must be null"),
        ("MODEL.ISONET.ZERO_INIT_LAST_NORM", bool, "ZERO_INIT_LAST_NORM must be False"),
        ("MODEL.ISONET.INIT", lambda x: x != "msra",
         "it has its own: leave INIT 'msra', as in its yaml"),
    ],
    ("MODEL.ISONET.INIT", "fixup"): [
        ("MODEL.RESNETS.NORM", bool, "a norm undoes it: NORM must be '', or INIT another"),
        ("MODEL.ISONET.SHORTCUT", not_, "zeros need a shortcut: SHORTCUT must be True"),
        ("MODEL.ISONET.RESIDUAL_SCALE", lambda x: x == 0,
         "zero times zero never trains: use null or 1.0"),
        ("MODEL.ISONET.CONV", lambda x: x != "Conv2d",
         "decoupled filters have no length: use 'msra'"),
    ],
    ("MODEL.ISONET.ZERO_INIT_LAST_NORM", True): [
        ("MODEL.RESNETS.NORM", not_, f"there is no norm: use one of {_LEARNED_NORMS}"),
        ("MODEL.ISONET.SHORTCUT", not_, "a zero needs a shortcut: SHORTCUT must be True"),
        ("MODEL.ISONET.RESIDUAL_SCALE", lambda x: x == 0,
         "zero times zero never trains: use null or 1.0"),
    ],
    ("MODEL.ISONET.SMALL_IMAGES", True): [
        ("MODEL.RESNETS.NUM_GROUPS", lambda x: x != 1, "basic blocks have one group: use 1"),
        ("MODEL.RESNETS.RES5_DILATION", lambda x: x != 1, "there is no res5: use 1"),
    ],
    ("MODEL.ISONET.RESIDUAL_SCALE", 0): [
        ("MODEL.ISONET.SHORTCUT", not_, "no signal would pass: use null or 1.0, or shortcuts"),
    ],
    ("MODEL.BACKBONE.CHECKPOINTING", True): [
        ("MODEL.RESNETS.NORM", lambda x: x not in _WITHOUT_STATISTICS,
         "recomputed batches would count twice in running statistics: use one of "
         f"{_WITHOUT_STATISTICS}"),
    ],
    ("MODEL.DECOUPLED.FROM_CONV2D", True): [
        ("MODEL.ISONET.CONV", lambda x: x != "Decoupled",
         "CONV must be 'Decoupled', or FROM_CONV2D False"),
    ],
}  # fmt: skip


def check_conflicts(cfg: CfgNode) -> None:
    """Raise UserError for the first pair of keys whose values exclude each other."""
    for (key, value), rows in _CONFLICTS.items():
        for other, is_excluded, remedy in rows:
            if value_of(cfg, key) == value and is_excluded(value_of(cfg, other)):
                raise conflict(cfg, key, other, remedy)
