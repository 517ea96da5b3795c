"""Messages for the user: UserError, the nearest names, shortened lists, errors in one line."""

import contextlib
import difflib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence

# fvcore causes it when it is imported, and the user of a command cannot change that
warnings.filterwarnings("ignore", r".*torch\.jit\.script.* is deprecated", FutureWarning)


class UserError(ValueError):
    """A mistake in what the user gave: its message is all that the user needs to mend it.

    Every script prints it in one line and ends with exit code 2. Any other exception keeps its
    traceback.

    Args:
        what: what is wrong, with the value and the file or key that holds it.
        remedy: what to do about it.
    """

    def __init__(self, what: str, remedy: str = ""):
        super().__init__(f"{what}; {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


def nearest(name: str, names: Iterable[str], otherwise: str = "") -> str:
    """Return "; did you mean A, B or C?", or `otherwise` if no name is similar.

    A name that lacks its folder ("risonet50" for "imagenet/risonet50") or its capitals is similar.
    """
    names = list(names)
    same = [x for x in names if x.rpartition("/")[2].casefold() == name.casefold()]
    near = list(dict.fromkeys([*same, *difflib.get_close_matches(name, names, n=3)]))[:3]
    if not near:
        return otherwise
    return f"; did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}?"


def shortened(names: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    """The first names and the number of the others: "a, b, c, d, e and 3 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


@contextlib.contextmanager
def readable_errors(of_this_process: bool = False) -> Iterator[None]:
    """End the process with the message alone where the user's input is at fault.

    detectron2 logs the traceback of an error in training; D2_ISONET_TRACEBACK=1 shows all.

    Args:
        of_this_process: the error may be this process's alone (its share of the images); False
            where all processes of a machine meet the same one and one message is enough.
    """
    from detectron2.utils import comm

    from .files import SaveError

    try:
        yield
    except (
        ValueError,
        FileNotFoundError,
        NotADirectoryError,
        PermissionError,
        SaveError,
        FloatingPointError,
    ) as error:
        if os.environ.get("D2_ISONET_TRACEBACK"):
            raise
        # all processes stop at a loss that is not finite, with the same message
        of_this_process = of_this_process and not isinstance(error, FloatingPointError)
        if of_this_process or comm.get_local_rank() == 0:
            print(f"error: {_original_message(error)}", file=sys.stderr, flush=True)
        sys.exit(2)


def _original_message(error: Exception) -> str:
    """What a loader's process said, which torch wraps into its traceback."""
    message = str(error)
    if message.startswith("Caught ") and "DataLoader" in message:
        return message.rstrip().splitlines()[-1].split(": ", 1)[-1]
    return message
