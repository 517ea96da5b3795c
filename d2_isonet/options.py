"""Options of the configuration that are one of several names."""

from collections.abc import Iterable

from .hints import nearest

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
    raise ValueError(f"{key} is {name!r}; it must be one of {choices}{none}{hint}")
