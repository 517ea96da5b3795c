"""Writers of logs that report a full disk once and do not stop the run."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter

from d2_isonet.utils.files import tolerate

_reported: set[str] = set()  # files; several handlers write to one


def tolerate_log_files(folder: str) -> None:
    """Let the log handlers of files in `folder` report the first failed write alone.

    logging prints a traceback for every line.
    """
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):  # a placeholder has none
            file = getattr(getattr(handler, "stream", None), "name", None)
            if isinstance(file, str) and os.path.dirname(file) == folder:
                handler.handleError = partial(_report_once, file, handler.handleError)


def _report_once(file: str, otherwise: Callable, record: logging.LogRecord) -> None:
    """Print that a line could not be written; `otherwise(record)` if no file is at fault."""
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        otherwise(record)
    elif file not in _reported:
        _reported.add(file)
        text = f"{file} could not be written: {error.strerror}. Lines of it may be missing"
        print(text, file=sys.stderr, flush=True)


class TolerantWriter(EventWriter):
    """An EventWriter whose failed writes are reported once and do not stop the run."""

    def __init__(self, writer: EventWriter):
        self.writer = writer
        self.failed = False

    def write(self, **options) -> None:
        self._try(self.writer.write, **options)

    def close(self) -> None:
        self._try(self.writer.close)

    def _try(self, action, **options) -> None:
        file = f"A file of {type(self.writer).__name__}"
        failed, self.failed = self.failed, True
        with suppress(OSError) if failed else tolerate(file, "Lines of it may be missing"):
            action(**options)
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


def tolerant_writers(output_dir: str, max_iter: int) -> list[EventWriter]:
    """detectron2's default writers: the terminal, metrics.json, and events for TensorBoard."""
    writers = [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardWriter(output_dir),
    ]
    return [TolerantWriter(writer) for writer in writers]
