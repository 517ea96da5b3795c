"""What a training has measured, and the search for the best learning rate."""

import json
import math
from pathlib import Path

from .cells import CLASSIFICATION, DETECTION, ROBUSTNESS, Cell, Folders, read_result
from .training_run import read_metrics

Rate = float | None  # None: the config's own


def rates_of(cell: Cell, seed: int, folders: Folders) -> tuple[Rate, ...]:
    """The rates that a seed may try, descending: all for seed 1, or if seed 1 was not run.

    Other seeds: seed 1's best, then the smaller ones if they diverge; only the smallest if seed 1
    found none.
    """
    rates: tuple[Rate, ...] = cell.learning_rates or (None,)
    first = read_result(folders, cell, 1) if seed > 1 else None
    if not first or rates == (None,):
        return rates
    best = first["learning_rate"] if first["measures"] else rates[-1]
    return tuple(rate for rate in rates if rate <= best)


def search(attempts: list[dict], rates: tuple[Rate, ...], seed: int) -> tuple[dict, tuple]:
    """The attempt that counts, {} if none has converged, and the rates left, the next first.

    Seed 1 searches until a rate gives less than a larger one, the others until one converges.
    Attempts beyond the end or a gap, made by an earlier search with other rules, do not count.
    """
    by_rate = {attempt["learning_rate"]: attempt for attempt in attempts}
    best: dict = {}
    for done, rate in enumerate(rates):
        if rate not in by_rate:
            return best, rates[done:]
        attempt = by_rate[rate]
        if attempt["converged"]:
            if best and _accuracy(attempt) < _accuracy(best):
                return best, ()
            best = max(best or attempt, attempt, key=_accuracy)
            if seed > 1:
                return best, ()
    return best, ()


def _accuracy(attempt: dict) -> float:
    return attempt["measures"].get("top-1", 0.0)


def lacks_weights(cell: Cell, seed: int, folders: Folders) -> bool:
    """Whether the training it starts from has failed: there is nothing to try."""
    before = read_result(folders, cell.weights, seed) if cell.weights else None
    return before is not None and not before["measures"]


def is_complete(cell: Cell, seed: int, folders: Folders) -> bool:
    """Whether the stored result has no rate left to try and is that of the attempt that counts."""
    result = read_result(folders, cell, seed)
    if result is None:
        return False
    if lacks_weights(cell, seed, folders):
        return True
    counting, left = search(result["attempts"], rates_of(cell, seed, folders), seed)
    return result["learning_rate"] == counting.get("learning_rate") and not left


_METRICS = {
    CLASSIFICATION: {"top-1": "classification/top1", "top-5": "classification/top5"},
    DETECTION: {"box AP": "bbox/AP", "mask AP": "segm/AP", "box AP50": "bbox/AP50",
                "mask AP50": "segm/AP50"},
}  # fmt: skip


def measures(cell: Cell, folder: Path) -> dict[str, float | None]:
    """Percentages by name of the training in `folder`; an undefined AP (no detection) is 0.

    "L2 effort" is in pixel values, and None if most images could not be fooled.

    Raises:
        ValueError: the training has ended without an evaluation.
    """
    if cell.script == ROBUSTNESS:
        return _robustness(json.loads((folder / "robustness.json").read_text()))
    last, metrics = read_metrics(folder / "metrics.json"), _METRICS[cell.script]
    needed = next(iter(metrics.values()))
    if needed not in last:
        raise ValueError(f"{folder}/metrics.json has no {needed}: nothing was evaluated")
    found = {name: float(last.get(key, math.nan)) for name, key in metrics.items()}
    if cell.script == DETECTION:
        return {name: 0.0 if math.isnan(value) else value for name, value in found.items()}
    found["top-5 error"] = 100 - found.get("top-5", math.nan)
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _robustness(found: dict) -> dict[str, float | None]:
    """Accuracy without attack and under each requested attack, and the median L2 effort."""
    asked = [row for row in found["rows"] if row["eps"] in found["eps"]]
    accuracies = {row["attack"].upper(): row["accuracy"] for row in asked}
    return {"none": found["clean"], **accuracies, "L2 effort": found["l2_effort"]["median"]}


def has_converged(cell: Cell, found: dict[str, float | None]) -> bool:
    """Whether a training that has not diverged counts: a classifier needs a lowest accuracy."""
    return found.get("top-1", math.inf) >= cell.converges_at


def shifts(folder: Path) -> dict[str, dict]:
    """Where the learned SReLU shifts of a training ended, by stage (the paper's figure 3)."""
    import torch

    from d2_isonet.isometry.measures import distribution, shifts_by_stage

    path = folder / "backbone.pth"
    state = torch.load(path, weights_only=True)["model"] if path.is_file() else {}
    return {stage: distribution(values) for stage, values in shifts_by_stage(state).items()}
