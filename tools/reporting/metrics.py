"""metrics.json as the engine writes it: one json object a line, maybe cut off or of two starts."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

NAME = "metrics.json"
# Of a training step; all others come from an evaluation.
_STEP_KEYS = ("total_loss", "lr")


@dataclass
class Metrics:
    """The records of a run in order, and what there is to say of the file.

    Attributes:
        steps: records of training steps, "iteration" rising.
        evaluations: records of evaluations, likewise; the iteration is that after which it was.
    """

    steps: list[dict] = field(default_factory=list)
    evaluations: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Iterations and values of one quantity, where it is finite."""
        points = [
            (record["iteration"], record[key])
            for record in (*self.steps, *self.evaluations)
            if math.isfinite(record.get(key, math.nan))
        ]
        return [p[0] for p in points], [p[1] for p in points]

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
    """The metrics of a run; what cannot be read is left out and told in `notes`."""
    metrics = Metrics()
    if not file.is_file():
        metrics.notes.append(
            f"There is no {NAME}: no training wrote here, or none came to its first record yet."
        )
        return metrics
    records, damaged, is_cut_off = _records(file.read_text(encoding="utf-8", errors="replace"))
    if is_cut_off:
        metrics.notes.append(
            f"The last line of {NAME} is cut off: the run was killed, or is writing it now."
        )
    if damaged:
        lines = ", ".join(map(str, damaged[:10])) + (" ..." if len(damaged) > 10 else "")
        metrics.notes.append(f"{len(damaged)} damaged lines of {NAME} are left out: {lines}.")
    _sort_out(records, metrics)
    return metrics


def _records(text: str) -> tuple[list[dict], list[int], bool]:
    """Records, numbers of damaged lines, and whether the last line is cut off."""
    records, damaged = [], []
    lines = text.split("\n")  # not splitlines, which splits at characters inside of names
    for number, line in enumerate(lines, 1):
        record = _record(line)
        if record:
            records.append(record)
        if line.strip() and (record is None or not line.strip().startswith("{")):
            damaged.append(number)
    is_cut_off = bool(damaged) and damaged[-1] == len(lines)
    return records, damaged[:-1] if is_cut_off else damaged, is_cut_off


def _record(line: str) -> dict | None:
    """The numbers of a line; of a line that begins cut off, those of the record that follows."""
    for start in dict.fromkeys((0, line.rfind("{"))):
        try:
            content = json.loads(line[max(0, start) :])
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict) and isinstance(content.get("iteration"), int):
            return {k: v for k, v in content.items() if _is_number(v)}
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sort_out(records: list[dict], metrics: Metrics) -> None:
    """Into steps and evaluations; where iterations go back, a later start replaces what it redid.

    A record of an evaluation may follow that of a later step: both are written at once.
    """
    for record in records:
        is_step = any(key in record for key in _STEP_KEYS)
        own = metrics.steps if is_step else metrics.evaluations
        if own and record["iteration"] < own[-1]["iteration"]:
            _replace_from(record["iteration"], metrics, also_evaluations=is_step)
        elif own and record["iteration"] == own[-1]["iteration"]:
            record = {**own.pop(), **record}
        own.append(record)


def _replace_from(iteration: int, metrics: Metrics, also_evaluations: bool) -> None:
    kept = [x for x in metrics.evaluations if x["iteration"] < iteration]
    metrics.evaluations[:] = kept
    if also_evaluations:
        metrics.steps[:] = [x for x in metrics.steps if x["iteration"] < iteration]
        metrics.notes.append(
            f"The training was started again: from iteration {iteration} on, {NAME} has two "
            "courses, and the later one is shown."
        )
