"""Validates the network's config keys before any layer is built."""

import math

from detectron2.config import CfgNode

from d2_isonet.config.options import (
    BLOCKS,
    CNN9_BACKBONE,
    CONVS,
    NORMS,
    check_name,
    check_range,
    conflict,
    illegal,
    value_of,
)
from d2_isonet.layers.activation import ACTIVATIONS
from d2_isonet.layers.decoupled_conv import ANGULARS, MAGNITUDES, RADIUS_SCALES, WITH_RADIUS
from d2_isonet.layers.weight_init import FILLS
from d2_isonet.modeling.stages import STAGES
from d2_isonet.utils.messages import UserError

from .conflicts import check_conflicts
from .resnet import NUM_BLOCKS


def check_architecture(cfg: CfgNode) -> None:
    """Raise UserError with keys, values and remedy if cfg describes no possible network."""
    for key, choices in (
        ("MODEL.RESNETS.NORM", NORMS),
        ("MODEL.ISONET.ACTIVATION", ACTIVATIONS),
        ("MODEL.ISONET.INIT", FILLS),
        ("MODEL.ISONET.BLOCK", BLOCKS),
        ("MODEL.ISONET.CONV", CONVS),
        # _check_decoupled refuses "" if it matters
        ("MODEL.DECOUPLED.MAGNITUDE", MAGNITUDES if cfg.MODEL.DECOUPLED.MAGNITUDE else ("",)),
        ("MODEL.DECOUPLED.ANGULAR", ANGULARS),
        ("MODEL.DECOUPLED.RADIUS_SCALE", RADIUS_SCALES),
    ):
        check_name(key, value_of(cfg, key), choices)
    _check_residual_scale(cfg)
    check_conflicts(cfg)
    _check_depth(cfg)
    _check_stages(cfg)
    _check_freezing(cfg)
    _check_widths(cfg)
    _check_norm_groups(cfg)
    if cfg.MODEL.ISONET.CONV == "Decoupled":
        _check_decoupled(cfg)


def check_pyramid(cfg: CfgNode) -> None:
    """Raise UserError if an FPN, of this project or detectron2's, is to stand on a dilated res5."""
    dilation, name = cfg.MODEL.RESNETS.RES5_DILATION, cfg.MODEL.BACKBONE.NAME
    if dilation != 1 and ("resnet_fpn" in name or "isonet_fpn" in name):
        remedy = "its levels must halve in size, set it to 1, or use a *_dc5.yaml without FPN"
        raise UserError(f"MODEL.RESNETS.RES5_DILATION is {dilation} with an FPN", remedy)


def _check_residual_scale(cfg: CfgNode) -> None:
    # yacs accepts any type for a key whose default is null.
    scale = cfg.MODEL.ISONET.RESIDUAL_SCALE
    is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if scale is not None and not (is_number and math.isfinite(scale)):
        remedy = "it must be a number, the scale's first value, or null for no scale"
        raise illegal(cfg, "MODEL.ISONET.RESIDUAL_SCALE", remedy)


def _check_depth(cfg: CfgNode) -> None:
    depth, small = cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.ISONET.SMALL_IMAGES
    if not small and depth not in NUM_BLOCKS:
        remedy = f"it must be one of {sorted(NUM_BLOCKS)}, "
        remedy += "or 6n + 2 with MODEL.ISONET.SMALL_IMAGES True"
        raise illegal(cfg, "MODEL.RESNETS.DEPTH", remedy)
    if small and (depth < 8 or depth % 6 != 2):
        below = 6 * ((depth - 2) // 6) + 2
        near = " or ".join(str(legal) for legal in (below, below + 6) if legal >= 8) or "8"
        remedy = f"DEPTH must be 6n + 2 (8, 14, 20, ...): use {near}"
        raise conflict(cfg, "MODEL.ISONET.SMALL_IMAGES", "MODEL.RESNETS.DEPTH", remedy)
    groups = cfg.MODEL.RESNETS.NUM_GROUPS
    if depth < 50 and groups != 1:
        what = f"MODEL.RESNETS.NUM_GROUPS is {groups} at depth {depth}"
        raise UserError(what, "basic blocks have one group, use 1 or a depth of at least 50")


def _check_stages(cfg: CfgNode) -> None:
    resnets, small = cfg.MODEL.RESNETS, cfg.MODEL.ISONET.SMALL_IMAGES
    if resnets.RES5_DILATION not in (1, 2):
        raise illegal(cfg, "MODEL.RESNETS.RES5_DILATION", "use 1 or 2")
    if any(resnets.DEFORM_ON_PER_STAGE):
        remedy = "isometric blocks have no deformable form, leave it all False"
        raise UserError("MODEL.RESNETS.DEFORM_ON_PER_STAGE is set", remedy)
    legal = list(STAGES[:-1] if small else STAGES)
    is_legal = resnets.OUT_FEATURES and set(resnets.OUT_FEATURES) <= set(legal)
    if not is_legal and not _is_cnn9(cfg):  # the constructor of CNN9 checks its own stages
        remedy = f"with MODEL.ISONET.SMALL_IMAGES {small} it must be some of {legal}"
        raise illegal(cfg, "MODEL.RESNETS.OUT_FEATURES", remedy)


def _check_freezing(cfg: CfgNode) -> None:
    all_stages = 4 if cfg.MODEL.ISONET.SMALL_IMAGES else 5
    if not 0 <= cfg.MODEL.BACKBONE.FREEZE_AT <= all_stages:
        remedy = "it must be from 0 (nothing is frozen; 1 freezes the stem, 2 also res2) to "
        raise illegal(cfg, "MODEL.BACKBONE.FREEZE_AT", f"{remedy}{all_stages} (everything)")


def _check_widths(cfg: CfgNode) -> None:
    stem, res2 = "MODEL.RESNETS.STEM_OUT_CHANNELS", "MODEL.RESNETS.RES2_OUT_CHANNELS"
    for key in (stem, res2, "MODEL.RESNETS.WIDTH_PER_GROUP", "MODEL.RESNETS.NUM_GROUPS"):
        check_range(key, value_of(cfg, key), 1)
    of_one_width = {
        "MODEL.ISONET.SMALL_IMAGES": True,
        "MODEL.ISONET.BLOCK": "modified",
        "MODEL.BACKBONE.NAME": CNN9_BACKBONE,
    }
    for key, value in of_one_width.items():
        if value_of(cfg, key) == value and value_of(cfg, stem) != res2_out_channels(cfg):
            raise conflict(cfg, stem, res2, f"with {key} {value!r} they must be equal")


def _check_norm_groups(cfg: CfgNode) -> None:
    resnets, groups = cfg.MODEL.RESNETS, cfg.MODEL.ISONET.NORM_GROUPS
    widths = {resnets.STEM_OUT_CHANNELS, res2_out_channels(cfg)}
    if _has_bottlenecks(cfg):
        widths.add(resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP)
    if resnets.NORM == "GN" and (groups < 1 or any(width % groups for width in widths)):
        remedy = f"it must divide every width, here {sorted(widths)} and their doubles"
        raise conflict(cfg, "MODEL.ISONET.NORM_GROUPS", "MODEL.RESNETS.NORM", remedy)


def _is_cnn9(cfg: CfgNode) -> bool:
    return cfg.MODEL.BACKBONE.NAME == CNN9_BACKBONE


def _has_bottlenecks(cfg: CfgNode) -> bool:
    shallow = cfg.MODEL.RESNETS.DEPTH < 50 or cfg.MODEL.ISONET.SMALL_IMAGES
    return not shallow and not _is_cnn9(cfg)


def res2_out_channels(cfg: CfgNode) -> int:
    """The width of res2. Without bottlenecks it is the stem's if cfg has detectron2's default."""
    resnets = cfg.MODEL.RESNETS
    is_default = resnets.RES2_OUT_CHANNELS == 256  # a bottleneck's, and wrong for a basic block
    if is_default and not _has_bottlenecks(cfg):
        return resnets.STEM_OUT_CHANNELS
    return resnets.RES2_OUT_CHANNELS


def _check_decoupled(cfg: CfgNode) -> None:
    # DecoupledOptions checks the numbers.
    decoupled = cfg.MODEL.DECOUPLED
    if not decoupled.MAGNITUDE:
        remedy = f"an angle needs its magnitude: MAGNITUDE must be one of {list(MAGNITUDES)}"
        raise conflict(cfg, "MODEL.DECOUPLED.ANGULAR", "MODEL.DECOUPLED.MAGNITUDE", remedy)
    # These scales of the radius change with every batch.
    averages = decoupled.MAGNITUDE in WITH_RADIUS and decoupled.RADIUS_SCALE in ("batch", "running")
    if cfg.MODEL.BACKBONE.CHECKPOINTING and averages:
        checkpointing, scale = "MODEL.BACKBONE.CHECKPOINTING", "MODEL.DECOUPLED.RADIUS_SCALE"
        remedy = "recomputed batches would count twice in its average: use 'frozen' or 'none'"
        raise conflict(cfg, checkpointing, scale, remedy)
