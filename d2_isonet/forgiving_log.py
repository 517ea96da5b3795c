"""log.txt on a full disk: told once, where logging prints a traceback for every line."""

import logging
import os
import sys
from collections.abc import Callable

_told: set[str] = set()  # files; several handlers write to one


def forgive_log_files(folder: str) -> None:
    """Let the log handlers that write to a file in `folder` tell its first failure alone."""
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):  # a placeholder has none
            file = getattr(getattr(handler, "stream", None), "name", None)
            if isinstance(file, str) and os.path.dirname(file) == folder:
                handler.handleError = _teller(file, handler.handleError)


def _teller(file: str, otherwise: Callable[[logging.LogRecord], None]) -> Callable:
    """What a handler does when a line cannot be written."""

    def tell(record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            otherwise(record)
        elif file not in _told:
            _told.add(file)
            text = f"{file} cannot be written ({error}); lines of it may be missing"
            print(text, file=sys.stderr, flush=True)

    return tell
