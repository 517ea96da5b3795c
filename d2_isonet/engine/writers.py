"""log.txt on a full disk: told once, where logging prints a traceback for every line."""

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter

logger = logging.getLogger(__name__)
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


class ForgivingWriter(EventWriter):
    """Another EventWriter whose OSErrors are told once and lose lines of the log, not the run."""

    def __init__(self, writer: EventWriter):
        self.writer = writer
        self.failed = False

    def write(self, **options) -> None:
        self._try(self.writer.write, **options)

    def close(self) -> None:
        self._try(self.writer.close)

    def _try(self, action, **options) -> None:
        try:
            action(**options)
        except OSError as error:
            if not self.failed:
                name = type(self.writer).__name__
                logger.warning(f"{name} cannot write ({error}); lines of it may be missing")
            self.failed = True
        else:
            self.failed = False


class TensorboardWriter(TensorboardXWriter):
    """TensorboardXWriter that opens its file at the first write, and a new one after a failure.

    The thread behind a SummaryWriter ends at its first error, and v0.6 writes a file at once.
    """

    def __init__(self, log_dir: str, window_size: int = 20):
        self._log_dir, self._window_size, self._last_write = log_dir, window_size, -1
        self._open: Any = None

    @property
    def _writer(self):
        if self._open is None:
            from torch.utils.tensorboard import SummaryWriter  # takes a second

            self._open = SummaryWriter(self._log_dir)
        return self._open

    def write(self) -> None:
        try:
            super().write()
        except OSError:
            self._open = None
            raise

    def close(self) -> None:
        if self._open is not None:
            self._open.close()


def forgiving_writers(output_dir: str, max_iter: int) -> list[EventWriter]:
    """detectron2's default writers: the terminal, metrics.json, and events for TensorBoard."""
    writers = [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardWriter(output_dir),
    ]
    return [ForgivingWriter(writer) for writer in writers]
