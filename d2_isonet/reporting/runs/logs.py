"""Reads metrics.json and log.txt: maybe cut off, maybe written by several starts."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from d2_isonet.utils.files import parse_json, read_regular
from d2_isonet.utils.messages import UserError

METRICS = "metrics.json"
# Keys of an evaluation, maybe after the data set's name; all others are of a training step.
_OF_EVALUATION = re.compile(
    r"(^|/)(bbox|segm|keypoints|classification|box_proposals|sem_seg|panoptic_seg)/"
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LINE = re.compile(r"^\[[^\]]+\] (\S+?):? (DEBUG|INFO|WARNING|ERROR|CRITICAL): (.*)$")
_ARGUMENTS = "Command line arguments: "
_MOST_METRICS = 1 << 29  # bytes of metrics.json: ten million iterations
_MAX_BYTES = 64 * 2**20  # read from the end of a log that grew for weeks


@dataclass
class Metrics:
    """The records of a run, in the order of "iteration"; an evaluation follows its iteration."""

    steps: list[dict] = field(default_factory=list)  # of the training
    evaluations: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is missing or damaged, in sentences

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Iterations and values of one quantity, without those that are not finite."""
        records = (*self.steps, *self.evaluations)
        finite = [x for x in records if math.isfinite(x.get(key, math.nan))]
        return [x["iteration"] for x in finite], [x[key] for x in finite]

    def last(self, key: str) -> float | None:
        values = self.series(key)[1]
        return values[-1] if values else None

    def keys(self) -> list[str]:
        """Every quantity of a training step, sorted."""
        return sorted({key for record in self.steps for key in record} - {"iteration"})

    def results(self) -> list[str]:
        """Every quantity of an evaluation, in the order of the file."""
        names = dict.fromkeys(key for record in self.evaluations for key in record)
        return [name for name in names if name != "iteration"]


def read_metrics(file: Path) -> Metrics:
    """The metrics of a run; unreadable lines are skipped and reported in `notes`."""
    if not file.exists():
        why = "no training wrote here, or it has not reached its first record"
        return Metrics(notes=[f"There is no {METRICS}: {why}."])
    metrics = Metrics()
    try:
        text = read_regular(file, _MOST_METRICS).decode("utf-8", errors="replace")
    except (OSError, UserError) as error:
        return Metrics(notes=[f"{error}."])
    lines = text.split("\n")  # splitlines would split at characters inside names
    records = [_record(line) for line in lines]
    damaged = [i for i, line in enumerate(lines) if records[i] is None and line.strip()]
    for i in damaged:  # a resumed run may have continued a line that was cut off
        records[i] = _record(lines[i][max(0, lines[i].rfind("{")) :])
    if damaged and damaged[-1] == len(lines) - 1:
        damaged.pop()
        metrics.notes.append(
            f"The last line of {METRICS} is cut off: the run was killed, or is writing it now."
        )
    if damaged:
        numbers = ", ".join(str(i + 1) for i in damaged[:10]) + (" ..." if damaged[10:] else "")
        metrics.notes.append(f"{len(damaged)} damaged lines of {METRICS} are skipped: {numbers}.")
    _add_records(filter(None, records), metrics)
    return metrics


def _record(line: str) -> dict | None:
    """The numbers of a line; None if it is not a record."""
    try:
        content = parse_json(line)
    except ValueError:
        return None
    if not isinstance(content, dict) or type(content.get("iteration")) is not int:
        return None
    return {k: v for k, v in content.items() if type(v) in (int, float)}


def _add_records(records: Iterable[dict], metrics: Metrics) -> None:
    """Fill in steps and evaluations; if iterations go back, a later start replaces what it redid.

    A record may be of both. The record of an evaluation may follow that of a later step, and so
    may a measurement without a loss (isometry): detectron2 writes both as soon as they exist.
    """
    steps: dict[int, dict] = {}
    evaluations: dict[int, dict] = {}
    last_step = last_evaluation = 0
    for record in records:
        iteration = record["iteration"]
        results = {k: v for k, v in record.items() if _OF_EVALUATION.search(k)}
        step = {k: v for k, v in record.items() if k not in results and k != "iteration"}
        is_restart = "total_loss" in step and iteration < last_step
        if is_restart:
            steps = {i: x for i, x in steps.items() if i < iteration}
            last_step = iteration
            metrics.notes.append(
                f"The training was started again: {METRICS} has two versions from iteration "
                f"{iteration} on, and the later one is shown."
            )
        if is_restart or (results and iteration < last_evaluation):
            evaluations = {i: x for i, x in evaluations.items() if i < iteration}
            last_evaluation = max(evaluations, default=0)
        if step:
            steps.setdefault(iteration, {"iteration": iteration}).update(step)
            last_step = max(last_step, iteration)
        if results:
            evaluations.setdefault(iteration, {"iteration": iteration}).update(results)
            last_evaluation = max(last_evaluation, iteration)
    metrics.steps = [steps[i] for i in sorted(steps)]
    metrics.evaluations = [evaluations[i] for i in sorted(evaluations)]


@dataclass
class Log:
    """What log.txt says about a run."""

    warnings: Counter[str] = field(default_factory=Counter)  # how often each message was logged
    error: str = ""  # the last line of a traceback that ends the log; "" without one
    arguments: str = ""  # of the last start, as text
    environment: str = ""  # likewise


def read_log(file: Path) -> Log:
    """The log of a run; empty if there is no file."""
    log = Log()
    for level, message, following in _log_records(file):
        if level == "WARNING":
            log.warnings[message] += 1
        if message.startswith(_ARGUMENTS):
            log.arguments, log.error = message.removeprefix(_ARGUMENTS), ""
        if message.startswith("Environment info"):
            log.environment = following
        if level == "ERROR":
            log.error = following.split("\n")[-1] if "Traceback" in following else message
    return log


def _log_records(file: Path) -> list[tuple[str, str, str]]:
    """Level, first line, and following lines of each message."""
    if not file.is_file():
        return []
    with open(file, "rb") as opened:
        opened.seek(max(0, file.stat().st_size - _MAX_BYTES))
        text = opened.read().decode("utf-8", errors="replace")
    records: list[tuple[str, str, list[str]]] = []
    for line in _COLOURS.sub("", text).split("\n"):
        match = _LINE.match(line)
        if match:
            records.append((match[2], match[3], []))
        elif records:
            records[-1][2].append(line)
    return [(level, first, "\n".join(lines).strip()) for level, first, lines in records]
