"""What a config asks for beyond the defaults, and where the configs of runs differ."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import get_cfg

from d2_isonet.config.defaults import add_isonet_config

ABSENT = object()  # a key that a config does not have


def defaults() -> dict[str, Any]:
    """Every key of detectron2 and of this project with its default, flat."""
    cfg = get_cfg()
    add_isonet_config(cfg)
    return flat(cfg)


def flat(config: dict, prefix: str = "") -> dict[str, Any]:
    """{"SOLVER.BASE_LR": 0.1, ...} of nested dicts; tuples become lists, as yaml writes them."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            values.update(flat(value, f"{name}."))
        else:
            values[name] = _as_yaml(value)
    return values


def _as_yaml(value: Any) -> Any:
    return [_as_yaml(x) for x in value] if isinstance(value, tuple | list) else value


def changed_keys(configs: Sequence[dict], base: dict[str, Any]) -> list[str]:
    """Keys that any of the flat configs has otherwise than the defaults, sorted."""
    keys = {key for config in configs for key in config}
    return sorted(
        k for k in keys if any(not same(c.get(k, ABSENT), base.get(k, ABSENT)) for c in configs)
    )


def differing_keys(configs: Sequence[dict]) -> list[str]:
    """Keys that the flat configs do not agree on, sorted."""
    keys = {key for config in configs for key in config}
    return sorted(
        k
        for k in keys
        if not all(same(c.get(k, ABSENT), configs[0].get(k, ABSENT)) for c in configs)
    )


def same(a: Any, b: Any) -> bool:
    """Whether two values of a config mean the same: 1 and 1.0 do, 1 and True do not."""
    return a == b and (isinstance(a, bool) == isinstance(b, bool))


def text_of(value: Any) -> str:
    return "–" if value is ABSENT else '""' if value == "" else str(value)
