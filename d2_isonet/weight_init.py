"""Convolution initializers; siblings of fvcore's c2_msra_fill."""

from collections.abc import Callable

from fvcore.nn.weight_init import c2_msra_fill
from torch import nn

__all__ = ["delta_fill", "get_fill"]


def delta_fill(conv: nn.Conv2d) -> None:
    """Make `conv` the Kronecker delta: output channel m copies input channel m (ISONet, Example 1).

    The centre tap is one where the two indices agree (per group), all else is zero, the bias
    too. With more outputs than inputs the remaining outputs are zero, with fewer the remaining
    inputs are dropped; a stride samples.
    """
    nn.init.dirac_(conv.weight, conv.groups)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


_FILLS = {"delta": delta_fill, "msra": c2_msra_fill}


def get_fill(name: str) -> Callable[[nn.Conv2d], None]:
    """The initializer called `name`.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in _FILLS:
        raise ValueError(f"MODEL.ISONET.INIT is {name!r}; it must be one of {sorted(_FILLS)}")
    return _FILLS[name]
