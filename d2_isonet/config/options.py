"""Options of the configuration: one of several names, or a number of a range."""

import functools
import math
from collections.abc import Iterable

import torch
from detectron2.config import CfgNode

from d2_isonet.utils.messages import UserError, nearest

BLOCKS = ("residual", "fixup", "modified")
CONVS = ("Conv2d", "Decoupled")
NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
# The name of the backbone that is no ResNet.
CNN9_BACKBONE = "build_cnn9_backbone"


def check_name(key: str, name: object, choices: Iterable[str]) -> None:
    """Raise ValueError with the key, the choices and the nearest of them if `name` is none."""
    choices = list(choices)
    if name in choices:
        return
    hint = nearest(str(name), filter(None, choices))
    none = " ('' is none)" if "" in choices else ""
    raise UserError(f"{key} is {name!r}", f"it must be one of {choices}{none}{hint}")


def check_range(key: str, value: float, least: float = 0, below: float = math.inf) -> None:
    """Raise ValueError with the key and its range unless least <= value < below; nan is not."""
    if not least <= value < below:
        limit = f" and below {below:g}" if below < math.inf else ""
        finite = "finite and " if math.isinf(value) else ""
        raise UserError(f"{key} is {value}", f"it must be {finite}at least {least:g}{limit}")


PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}
ACTIONS = ("stop", "skip", "rollback")


def conflict(cfg: CfgNode, key: str, other: str, remedy: str) -> ValueError:
    """The error that two keys exclude each other with the values they have."""
    return UserError(
        f"{key} is {value_of(cfg, key)!r} with {other} {value_of(cfg, other)!r}",
        f"{remedy}",
    )


def value_of(cfg: CfgNode, key: str):
    """The value of a dotted key."""
    return functools.reduce(getattr, key.split("."), cfg)
