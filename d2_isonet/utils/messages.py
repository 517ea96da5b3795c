"""Messages for the user: UserError, nearest names, shortened lists, names that cannot do harm."""

import contextlib
import difflib
import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

# fvcore causes it when it is imported, and the user of a command cannot change that
warnings.filterwarnings("ignore", r".*torch\.jit\.script.* is deprecated", FutureWarning)

# Control characters, and marks that reorder the text around them; half of a pair has no encoding.
_UNPRINTABLE = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_ESCAPED = {
    "name": re.compile(rf"{_UNPRINTABLE}|[\t\n]"),
    "message": re.compile(rf"{_UNPRINTABLE}|\n(?!  )"),  # lists in messages are indented
    "log": re.compile(rf"{_UNPRINTABLE}|\n(?=\[)"),  # a record begins with [
}


_Kind = Literal["name", "message", "log"]


def printable(text: str, kind: _Kind = "name") -> str:
    """`text` with its control characters and marks of direction escaped, as in "\\x1b[31m".

    Whatever comes from a file passes through it before it reaches a terminal, a log or a page.

    Args:
        kind: the line breaks that stay: none in a name, those before an indented line in a message,
            all that do not begin a new record in a log, a table or a page.
    """
    return _ESCAPED[kind].sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def show(text: str, to_stderr: bool = False) -> None:
    """Print text that quotes files."""
    print(printable(text, "log"), file=sys.stderr if to_stderr else sys.stdout, flush=True)


class UserError(ValueError):
    """A mistake in what the user gave: its message is all that the user needs to correct it.

    Every command prints it in one line and ends with exit code 2. Any other exception keeps its
    traceback, see `readable_errors`.

    Args:
        what: what is wrong, with the value and the file or key that holds it.
        remedy: what to do about it.
    """

    def __init__(self, what: str, remedy: str = ""):
        # torch raises an error of a loading process again, with the traceback there as its message
        kind: _Kind = "log" if what.startswith("Caught ") else "message"
        self.what, self.remedy = printable(what, kind), printable(remedy, kind)
        super().__init__(f"{self.what}; {self.remedy}" if remedy else self.what)


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that the user named does not exist."""


# An error in their code is due to what it was called with, so that its caller tells whose it is.
_LIBRARIES = {
    *sys.stdlib_module_names,
    *("PIL", "cv2", "detectron2", "filelock", "fvcore", "hotcoco", "iopath", "matplotlib", "numpy"),
    *("omegaconf", "onnx", "onnxruntime", "pycocotools", "safetensors", "simplejpeg", "tabulate"),
    *("timm", "torch", "torchvision", "tqdm", "webdataset", "yacs", "yaml"),
}


def is_from_user_code(error: BaseException) -> bool:
    """Whether code of the user raised `error`, directly or by what it called a library with.

    That is if the innermost frame outside of the libraries is not one of this package.
    """
    packages = [x for x in _packages(error) if x not in _LIBRARIES]
    return packages[-1:] != [__name__.partition(".")[0]]


def _packages(error: BaseException) -> list[str]:
    """The package that each frame of the traceback belongs to, the innermost last."""
    frames = traceback.walk_tb(error.__traceback__)
    return [frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in frames]


@contextlib.contextmanager
def refusals_of_libraries(what: str) -> Iterator[None]:
    """Turn a ValueError with which a library refuses a value of the config into a UserError.

    A ValueError of the user's own code, or of this package's, stays as it is.
    """
    try:
        yield
    except ValueError as error:
        is_of_library = _packages(error)[-1] in _LIBRARIES and not is_from_user_code(error)
        if isinstance(error, UserError) or not is_of_library:
            raise
        remedy = "D2_ISONET_TRACEBACK=1 shows where in the code"
        raise UserError(f"{what}: {error}", remedy) from error


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
    return separator.join(map(printable, names[:most])) + more


@contextlib.contextmanager
def readable_errors(of_this_process: bool = False) -> Iterator[None]:
    """End the process with one line and exit code 2 if what the user gave is at fault.

    That is a UserError, a file that cannot be saved, a training that diverged, or a path that the
    operating system refuses to this package. Any other exception keeps its traceback, and with
    D2_ISONET_TRACEBACK=1 every one does. (detectron2 logs the traceback of an error in training.)

    Args:
        of_this_process: whether the error may be of this process alone (its share of the images);
            False if all processes of a machine meet the same one and one message is enough.
    """
    _make_output_printable()
    try:
        yield
    except Exception as error:
        if os.environ.get("D2_ISONET_TRACEBACK") or not _has_readable_message(error):
            raise
        from detectron2.utils import comm

        # all processes stop at a loss that is not finite, with the same message
        of_this_process = of_this_process and not isinstance(error, FloatingPointError)
        if of_this_process or comm.get_local_rank() == 0:
            show(f"error: {printable(_original_message(error), 'message')}", to_stderr=True)
        sys.exit(2)


_COLOURS = re.compile("\x1b\\[(0|3[456])m")  # of the tables that detectron2 logs
_make_record = logging.getLogRecordFactory()


def _make_output_printable() -> None:
    """Let log records and uncaught exceptions of this process escape what they quote."""
    logging.setLogRecordFactory(_printable_record)
    sys.excepthook = lambda *error: show("".join(traceback.format_exception(*error)).rstrip(), True)


def _printable_record(*values, **options) -> logging.LogRecord:
    record = _make_record(*values, **options)
    with contextlib.suppress(Exception):  # the arguments may not fit, which logging reports
        text = _COLOURS.sub("", record.getMessage())
        record.msg, record.args = printable(text, "log"), None
    if record.exc_info and record.exc_info[0]:
        text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        record.exc_text = printable(text, "log")
    return record


def _has_readable_message(error: Exception) -> bool:
    if isinstance(error, (UserError, FloatingPointError)):
        return True
    refusals = FileNotFoundError | NotADirectoryError | IsADirectoryError | PermissionError
    from_worker = str(error).startswith("Caught ")  # torch raises it again, without its frames
    return isinstance(error, refusals) and not from_worker and not is_from_user_code(error)


def _original_message(error: Exception) -> str:
    """What a process of a DataLoader raised, which torch wraps into the traceback there."""
    return str(error).rpartition(f"{type(error).__qualname__}: ")[2].rstrip()
