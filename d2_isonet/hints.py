"""What was probably meant by a name that is not there."""

import difflib
from collections.abc import Iterable, Sequence


def nearest(name: str, names: Iterable[str], otherwise: str = "") -> str:
    """ "; did you mean A, B or C?", or `otherwise` where nothing is near.

    A name without its folder ("risonet50" of "imagenet/risonet50") or its capitals is near.
    """
    names = list(names)
    same = [x for x in names if x.rpartition("/")[2].casefold() == name.casefold()]
    near = list(dict.fromkeys([*same, *difflib.get_close_matches(name, names, n=3)]))[:3]
    if not near:
        return otherwise
    return f"; did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}?"


def some(names: Sequence[str]) -> str:
    """The first five names and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
