"""Legal names and ranges of options, and how a dotted key is read."""

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from d2_isonet.utils.messages import UserError, nearest

if TYPE_CHECKING:
    from detectron2.config import CfgNode

BLOCKS = ("residual", "fixup", "modified")
CONVS = ("Conv2d", "Decoupled")
NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
CNN9_BACKBONE = "build_cnn9_backbone"  # the backbone that is no ResNet
PRECISIONS = ("float16", "bfloat16")  # names of torch's types
ACTIONS = ("stop", "skip", "rollback")


def check_name(key: str, name: object, choices: Iterable[str]) -> None:
    """Raise UserError with the key, the choices and the nearest of them unless `name` is one."""
    choices = list(choices)
    if name in choices:
        return
    hint = nearest(str(name), filter(None, choices))
    none = " ('' is none)" if "" in choices else ""
    raise UserError(f"{key} is {name!r}", f"it must be one of {choices}{none}{hint}")


def check_range(key: str, value: float, least: float = 0, below: float = math.inf) -> None:
    """Raise UserError with the key and its range unless least <= value < below; refuses nan."""
    if not least <= value < below:
        limit = f" and below {below:g}" if below < math.inf else ""
        finite = "finite and " if math.isinf(value) else ""
        raise UserError(f"{key} is {value}", f"it must be {finite}at least {least:g}{limit}")


# The largest number that a key may have, by the first pattern that fits its name; a network or a
# batch of tens of millions would be built, or not fail, for hours.
_MOST = (
    (r"MODEL\..*\.(NUM_CONVS?|NUM_FC)", 100),
    (r"MODEL\..*(RESOLUTION|DILATION|STRIDES?)", 1000),
    (r"MODEL\.RESNETS\.DEPTH", 2000),
    (r"MODEL\..*(_DIMS?|CHANNELS|WIDTH_PER_GROUP|_GROUPS)", 1 << 14),
    (r"MODEL\..*NUM_CLASSES", 1_000_000),
    (r"INPUT\..*(SIZE.*|RESIZE)", 100_000),
    (r"DATALOADER\.(NUM_WORKERS|SHARD_STREAMS)", 4096),
    (r"MODEL\..*|TEST\.DETECTIONS_PER_IMAGE|SOLVER\.(IMS_PER_BATCH|ACCUMULATE_STEPS)", 10_000_000),
)
_LONGEST_LIST = 100  # of MODEL: sizes of anchors, layers of a head


def check_sizes(cfg: "CfgNode") -> None:
    """Raise UserError if a number, or a list of the model, is larger than any in use."""
    for key, value in dotted_items(cfg):
        most = next((most for name, most in _MOST if re.fullmatch(name, key)), math.inf)
        for number in _flat(value):
            if isinstance(number, int) and number > most:
                raise UserError(f"{key} is {number:,}", f"it must be at most {most:,}")
        if key.startswith("MODEL.") and len(_flat(value)) > _LONGEST_LIST:
            what = f"{key} has {len(_flat(value))} values"
            raise UserError(what, f"give at most {_LONGEST_LIST}")


def _flat(value: Any) -> list:
    return [y for x in value for y in _flat(x)] if isinstance(value, list | tuple) else [value]


def illegal(cfg: "CfgNode", key: str, remedy: str) -> UserError:
    """The error that the value of a key is not legal."""
    return UserError(f"{key} is {value_of(cfg, key)!r}", remedy)


def conflict(cfg: "CfgNode", key: str, other: str, remedy: str) -> UserError:
    """The error that the values of two keys exclude each other."""
    values = f"{key} is {value_of(cfg, key)!r} with {other} {value_of(cfg, other)!r}"
    return UserError(values, remedy)


def value_of(cfg: "CfgNode", key: str) -> Any:
    """The value of a dotted key, which must exist."""
    return functools.reduce(getattr, key.split("."), cfg)


def dotted_items(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of every section and option in `section`."""
    for name, value in section.items():
        yield prefix + name, value
        if isinstance(value, Mapping):
            yield from dotted_items(value, f"{prefix}{name}.")
