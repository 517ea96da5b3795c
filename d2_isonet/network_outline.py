"""The network of a config by names and shapes alone, before memory or a GPU is asked for."""

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from d2_isonet.config.options import NORMS, check_name
from d2_isonet.modeling.backbone.checks import check_pyramid


def outline(cfg: CfgNode) -> nn.Module | None:
    """The model on the meta device, without values; None where its builder needs some.

    Raises:
        ValueError: the network cannot be built.
    """
    check_pyramid(cfg)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    try:
        with torch.device("meta"):
            return build_model(cfg)
    except RuntimeError:  # a model of others computes with values; its own build will tell
        return None
    except KeyError as error:
        raise ValueError(_unknown_name(cfg, str(error.args[0]))) from error
    except AssertionError as error:
        raise ValueError(
            f"detectron2 refuses the network: {error or 'an assertion without a text'}; the "
            "traceback is shown with D2_ISONET_TRACEBACK=1"
        ) from error


def _unknown_name(cfg: CfgNode, message: str) -> str:
    """What a registry, or detectron2's get_norm, does not know."""
    for key, value in _values(cfg.MODEL, "MODEL.", str):
        if value == message and key.endswith("NORM"):
            try:
                check_name(key, value, NORMS)
            except ValueError as error:
                return str(error)
    for key, value in _values(cfg.MODEL, "MODEL.", str):
        if value and f"'{value}'" in message and "registry" in message:
            return f"{key} is {value!r}: {message.splitlines()[0]}"
    feature = _missing_feature(cfg, message)
    return feature or f"the network cannot be built: {message.splitlines()[0]!r} is unknown"


def _missing_feature(cfg: CfgNode, name: str) -> str:
    """Who wants a feature map that the backbone does not give; "" where nobody does."""
    model = cfg.MODEL.clone()
    if model.META_ARCHITECTURE != "RetinaNet":
        model.pop("RETINANET")
    for key, names in _values(model, "MODEL.", list):
        if key.endswith(".IN_FEATURES") and name in names:
            given = f"with MODEL.RESNETS.OUT_FEATURES {cfg.MODEL.RESNETS.OUT_FEATURES}"
            return f"{key} is {names}, but {cfg.MODEL.BACKBONE.NAME!r} {given} gives no {name!r}"
    return ""


def _values(node: CfgNode, prefix: str, of_type: type) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from _values(value, f"{prefix}{name}.", of_type)
        elif isinstance(value, of_type):
            yield prefix + name, value
