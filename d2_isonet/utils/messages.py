"""What was probably meant by a name that is not there."""

import contextlib
import difflib
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence

# fvcore's, whenever it is imported: nothing that who types a command could change
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


INTERRUPTED = 130  # the exit code that shells report for Ctrl-C


@contextlib.contextmanager
def quiet_interrupt(message: str = "interrupted") -> Iterator[None]:
    """On Ctrl-C, print `message` and end the process with exit code 130.

    A command enters this before its slow imports. Under torchrun only one process prints.
    """
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not stop the clean-up
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(message, file=sys.stderr, flush=True)
        sys.exit(INTERRUPTED)


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
