"""The network of a config by names and shapes alone, before memory or a GPU is asked for."""

from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from .architecture_checks import check_pyramid
from .options import NORMS, check_name


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
    for key, value in _texts(cfg.MODEL, "MODEL."):
        if value == message and key.endswith("NORM"):
            try:
                check_name(key, value, NORMS)
            except ValueError as error:
                return str(error)
    for key, value in _texts(cfg.MODEL, "MODEL."):
        if f"'{value}'" in message and "registry" in message:
            return f"{key} is {value!r}: {message.splitlines()[0]}"
    return f"the network cannot be built: {message.splitlines()[0]!r} is unknown"


def _texts(node: CfgNode, prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from _texts(value, f"{prefix}{name}.")
        elif isinstance(value, str) and value:
            yield prefix + name, value
