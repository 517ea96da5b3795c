"""Checks the network: it can be built, and every key that was set has an effect."""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from detectron2 import modeling
from detectron2.config import CfgNode, get_cfg
from torch import nn

from d2_isonet.config.defaults import add_isonet_config
from d2_isonet.config.options import NORMS, check_name, conflict, dotted_items, value_of
from d2_isonet.layers.decoupled_conv import WITH_BETA, WITH_RADIUS
from d2_isonet.modeling.backbone.checks import check_pyramid
from d2_isonet.utils.messages import UserError, is_from_user_code, nearest, refusals_of_libraries

from .findings import Finding

# Keys of a section that have an effect only for some values of another key: section, keys, that
# key, and whether its value gives them their effect.
_DEPENDENCES: tuple[tuple[str, tuple[str, ...], str, Callable[[Any], bool]], ...] = (
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
    ("MODEL.DECOUPLED", ("RADIUS", "RADIUS_LEARNED", "RADIUS_SCALE"), "MODEL.DECOUPLED.MAGNITUDE",
     WITH_RADIUS.__contains__),
)  # fmt: skip


def keys_without_effect(cfg: CfgNode) -> list[Finding]:
    """A warning for each key that differs from its default and changes nothing.

    It is no error: a yaml whose CONV or NORM is overridden still has the keys that belong to it.
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


def check_names(cfg: CfgNode) -> None:
    """Raise UserError for a part of the model that nobody registered."""
    for key, registry in (
        ("MODEL.META_ARCHITECTURE", modeling.META_ARCH_REGISTRY),
        ("MODEL.BACKBONE.NAME", modeling.BACKBONE_REGISTRY),
        ("MODEL.ROI_HEADS.NAME", modeling.ROI_HEADS_REGISTRY),
    ):
        name, known = value_of(cfg, key), [registered for registered, _ in registry]
        if name not in known:
            hint = nearest(name, known, "; import the package that defines it")
            raise UserError(f"{key} is {name!r}, which nobody registered{hint}")


def check_pixels(cfg: CfgNode) -> None:
    """Raise UserError if images cannot be normalized by MODEL.PIXEL_MEAN and PIXEL_STD."""
    mean, std, order = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD, cfg.INPUT.FORMAT
    channels = 1 if order == "L" else 3  # a user's own mapper may give more than 3
    are_numbers = all(isinstance(x, int | float) and math.isfinite(x) for x in [*mean, *std])
    fit = len(mean) == len(std) and (len(mean) == channels or len(mean) > 3)
    if not fit or not are_numbers or min(std) <= 0:
        what = f"MODEL.PIXEL_MEAN is {mean} and MODEL.PIXEL_STD {std} with INPUT.FORMAT {order!r}"
        raise UserError(what, f"each must have {channels} numbers, the deviations above 0")


_CLASSIFIER_ALONE = {  # options of ImageClassifier, and their values that do nothing
    "INPUT.CLASSIFICATION.MIXUP_ALPHA": 0.0,
    "SOLVER.ADVERSARIAL.ATTACK": "",
    "MODEL.CLASSIFIER.DROPOUT": 0.0,
    "MODEL.CLASSIFIER.LABEL_SMOOTHING": 0.0,
}


def check_task(cfg: CfgNode, config_file: str, classifies: bool) -> None:
    """Raise UserError if a classifier's config was given to train a detector, or the reverse."""
    is_classifier = cfg.MODEL.META_ARCHITECTURE == "ImageClassifier"
    if is_classifier != classifies:
        kind, command = ("classifier", "pretrain") if is_classifier else ("detector", "train")
        what = f"{config_file} describes a {kind} (MODEL.META_ARCHITECTURE"
        raise UserError(f"{what} {cfg.MODEL.META_ARCHITECTURE})", f"d2-isonet {command} trains it")


def check_detector(cfg: CfgNode) -> None:
    """Raise UserError if cfg sets an option of ImageClassifier for a detector."""
    for key, none in _CLASSIFIER_ALONE.items():
        if value_of(cfg, key) != none and cfg.MODEL.META_ARCHITECTURE != "ImageClassifier":
            remedy = f"only ImageClassifier has it (d2-isonet pretrain): set it to {none!r}"
            raise conflict(cfg, key, "MODEL.META_ARCHITECTURE", remedy)


def outline(cfg: CfgNode) -> nn.Module | None:
    """The model on the meta device, without values; None if its builder needs values.

    Raises:
        UserError: the network cannot be built.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    try:
        with torch.device("meta"), refusals_of_libraries("the network cannot be built"):
            return modeling.build_model(cfg)
    except RuntimeError:  # a foreign model may compute with values; its real build says so
        return None
    except (KeyError, AssertionError) as error:
        if is_from_user_code(error):
            raise
        if isinstance(error, KeyError):
            raise UserError(_unknown_name(cfg, str(error.args[0]))) from error
        check_pyramid(cfg)  # of detectron2's own FPN: a message that names the key
        what = f"detectron2 refuses the network: {error or 'an assertion without a text'}"
        raise UserError(what, "the traceback is shown with D2_ISONET_TRACEBACK=1") from error


def _unknown_name(cfg: CfgNode, message: str) -> str:
    """Names the key whose value a registry, or detectron2's get_norm, does not know.

    Raises:
        UserError: it is a NORM; the message lists the values.
    """
    names = [(k, v) for k, v in dotted_items(cfg.MODEL, "MODEL.") if isinstance(v, str)]
    for key, value in names:
        if value == message and key.endswith("NORM"):
            check_name(key, value, NORMS)
    for key, value in names:
        if value and f"'{value}'" in message and "registry" in message:
            return f"{key} is {value!r}: {message.splitlines()[0]}"
    feature = _missing_feature(cfg, message)
    return feature or f"the network cannot be built: {message.splitlines()[0]!r} is unknown"


def _missing_feature(cfg: CfgNode, name: str) -> str:
    """The key that asks for a feature map which the backbone does not give; "" if none does."""
    model = cfg.MODEL.clone()
    if model.META_ARCHITECTURE != "RetinaNet":
        model.pop("RETINANET")
    for key, names in dotted_items(model, "MODEL."):
        if key.endswith(".IN_FEATURES") and name in names:
            given = f"with MODEL.RESNETS.OUT_FEATURES {cfg.MODEL.RESNETS.OUT_FEATURES}"
            return f"{key} is {names}, but {cfg.MODEL.BACKBONE.NAME!r} {given} gives no {name!r}"
    return ""
