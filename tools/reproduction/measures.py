"""What is read from a finished training: accuracy or AP, and where shifts and scales ended."""

import json
import math
from pathlib import Path

from training_run import read_metrics

from .cells import CLASSIFICATION, DETECTION, ROBUSTNESS, Cell

_METRICS = {
    CLASSIFICATION: {"top-1": "classification/top1", "top-5": "classification/top5"},
    DETECTION: {
        "box AP": "bbox/AP",
        "mask AP": "segm/AP",
        "box AP50": "bbox/AP50",
        "mask AP50": "segm/AP50",
    },
}


def measures(cell: Cell, folder: Path) -> dict[str, float | None]:
    """Percentages by name, of the training in `folder`; an undefined AP (nothing found) is 0.

    "L2 effort" is in pixel values, and None where most images could not be fooled.

    Raises:
        ValueError: the training has ended without an evaluation.
    """
    if cell.script == ROBUSTNESS:
        return _robustness(json.loads((folder / "robustness.json").read_text()))
    last = read_metrics(folder / "metrics.json")
    needed = next(iter(_METRICS[cell.script].values()))
    if needed not in last:
        raise ValueError(f"{folder}/metrics.json has no {needed}: nothing was evaluated")
    found = {name: float(last.get(key, math.nan)) for name, key in _METRICS[cell.script].items()}
    if cell.script == DETECTION:
        return {name: 0.0 if math.isnan(value) else value for name, value in found.items()}
    if not math.isnan(found.get("top-5", math.nan)):
        found["top-5 error"] = 100 - found["top-5"]
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _robustness(found: dict) -> dict[str, float | None]:
    """Accuracy without attack and under each attack asked for, and the median L2 effort."""
    asked = [row for row in found["rows"] if row["eps"] in found["eps"]]
    accuracies = {row["attack"].upper(): row["accuracy"] for row in asked}
    return {"none": found["clean"], **accuracies, "L2 effort": found["l2_effort"]["median"]}


def has_converged(cell: Cell, found: dict[str, float | None]) -> bool:
    """Whether a training that has not diverged counts; a classifier needs its accuracy."""
    return found.get("top-1", math.inf) >= cell.converges_at


def shifts(folder: Path) -> dict[str, dict]:
    """Where the learned SReLU shifts of a training ended, by stage (the paper's figure 3)."""
    import torch

    from d2_isonet.isometry.measures import distribution, shifts_by_stage

    path = folder / "backbone.pth"
    state = torch.load(path, weights_only=True)["model"] if path.is_file() else {}
    return {stage: distribution(values) for stage, values in shifts_by_stage(state).items()}
