"""Reads metrics.json: one json object per line, maybe cut off, maybe written by several starts."""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

NAME = "metrics.json"
# Keys of an evaluation, maybe after the data set's name; all others are of a training step.
_OF_EVALUATION = re.compile(
    r"(^|/)(bbox|segm|keypoints|classification|box_proposals|sem_seg|panoptic_seg)/"
)


@dataclass
class Metrics:
    """The records of a run.

    Attributes:
        steps: records of training steps, in the order of "iteration".
        evaluations: records of evaluations, likewise; each follows its iteration.
        notes: what is missing or damaged in the file, in sentences.
    """

    steps: list[dict] = field(default_factory=list)
    evaluations: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Iterations and values of one quantity, without those that are not finite."""
        records = (*self.steps, *self.evaluations)
        finite = [x for x in records if math.isfinite(x.get(key, math.nan))]
        return [x["iteration"] for x in finite], [x[key] for x in finite]

    def last(self, key: str) -> float | None:
        values = self.series(key)[1]
        return values[-1] if values else None

    def keys(self) -> list[str]:
        """Every quantity of a training step."""
        names = dict.fromkeys(key for record in self.steps for key in record)
        return sorted(names.keys() - {"iteration"})

    def results(self) -> list[str]:
        """Every quantity of an evaluation, in the order of the file."""
        names = dict.fromkeys(key for record in self.evaluations for key in record)
        return [name for name in names if name != "iteration"]


def read_metrics(file: Path) -> Metrics:
    """The metrics of a run; unreadable lines are skipped and reported in `notes`."""
    metrics = Metrics()
    if not file.is_file():
        metrics.notes.append(
            f"There is no {NAME}: no training wrote here, or it has not reached its first record."
        )
        return metrics
    records, damaged, is_cut_off = _records(file.read_text(encoding="utf-8", errors="replace"))
    if is_cut_off:
        metrics.notes.append(
            f"The last line of {NAME} is cut off: the run was killed, or is writing it now."
        )
    if damaged:
        lines = ", ".join(map(str, damaged[:10])) + (" ..." if len(damaged) > 10 else "")
        metrics.notes.append(f"{len(damaged)} damaged lines of {NAME} are skipped: {lines}.")
    _add_records(records, metrics)
    return metrics


def _records(text: str) -> tuple[list[dict], list[int], bool]:
    """Records, numbers of damaged lines, and whether the last line is cut off."""
    records, damaged = [], []
    lines = text.split("\n")  # splitlines would split at characters inside names
    for number, line in enumerate(lines, 1):
        record = _record(line)
        if record is None:
            record = _record(line[max(0, line.rfind("{")) :])  # a resumed run continued this line
            if line.strip():
                damaged.append(number)
        if record is not None:
            records.append(record)
    is_cut_off = bool(damaged) and damaged[-1] == len(lines)
    return records, damaged[:-1] if is_cut_off else damaged, is_cut_off


def _record(line: str) -> dict | None:
    """The numbers of a line; None if it is not a record."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or type(content.get("iteration")) is not int:
        return None
    return {k: v for k, v in content.items() if type(v) in (int, float)}


def _add_records(records: list[dict], metrics: Metrics) -> None:
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
                f"The training was started again: {NAME} has two versions from iteration "
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
