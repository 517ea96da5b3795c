"""Writers of logs that report a full disk once and do not stop the run."""

import json
import logging
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from detectron2.engine import TrainerBase
from detectron2.engine.hooks import PeriodicWriter
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    TensorboardXWriter,
    get_event_storage,
)

from d2_isonet.utils.files import parse_json, tolerate, write_text

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


class JSONWriter(EventWriter):
    """detectron2's JSONWriter, which writes a value of an iteration once, however a run resumes."""

    def __init__(self, path: str, window_size: int = 20):
        self._path, self._window_size = Path(path), window_size
        self._written: dict[str, int] = {}  # the last iteration of each name
        self._file: TextIO | None = None

    def write(self, evaluation: dict | None = None) -> None:
        """Write the newest values, or those of an evaluation alone, a line for each iteration."""
        storage = get_event_storage()
        if self._file is None:
            for entry in _entries(self._path):
                self._written |= dict.fromkeys(entry, entry.get("iteration", -1))
            self._file = open(self._path, "a", encoding="utf-8")
        latest = storage.latest_with_smoothing_hint(self._window_size)
        if evaluation is not None:
            latest = {name: (value, storage.iter) for name, value in evaluation.items()}
        lines: dict[int, dict] = defaultdict(dict)
        for name, (value, iteration) in latest.items():
            if iteration > self._written.get(name, -1):
                lines[iteration][name] = value
                self._written[name] = iteration
        for iteration in sorted(lines):
            entry = {**lines[iteration], "iteration": iteration}
            self._file.write(json.dumps(entry, sort_keys=True) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def write_evaluation(trainer: TrainerBase, results: dict) -> None:
    """Write the results of an evaluation to metrics.json at once: a kill cannot take them.

    The other values follow with the next period's.
    """
    values = {name: float(value) for name, value in flatten_results_dict(results).items()}
    periodic = [hook for hook in trainer._hooks if isinstance(hook, PeriodicWriter)]
    for writer in (x for hook in periodic for x in hook._writers):
        if isinstance(writer, TolerantWriter) and isinstance(writer.writer, JSONWriter):
            writer.write(evaluation=values)


def prepare_metrics(folder: Path, start_iter: int) -> None:
    """Remove the lines of metrics.json that a killed run wrote of iterations that this one repeats.

    The evaluation at the end of an earlier training has the next iteration's number: it stays. A
    run that starts at 0 sets the whole file aside.
    """
    path = folder / "metrics.json"
    if not path.is_file() or not path.stat().st_size:
        return
    with tolerate(path, "Iterations may be there twice"):
        if start_iter == 0:
            earlier = (folder / f"metrics.earlier_{n}.json" for n in range(1, 1 << 30))
            os.replace(path, next(file for file in earlier if not file.exists()))
            return
        text = "".join(
            json.dumps(entry) + "\n"
            for entry in _entries(path)
            if entry["iteration"] < start_iter
            or (entry["iteration"] == start_iter and "total_loss" not in entry)
        )
        if text != path.read_text(encoding="utf-8", errors="replace"):
            write_text(path, text)


def _entries(path: Path) -> list[dict]:
    """The lines of metrics.json, without those that a kill has cut off."""
    entries = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        with suppress(ValueError):
            entries.append(parse_json(line))
    return [x for x in entries if isinstance(x, dict) and isinstance(x.get("iteration"), int)]


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
