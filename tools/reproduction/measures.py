"""What is read from a finished training: accuracy or AP, and where shifts and scales ended."""

import json
import math
from pathlib import Path

from .cells import CLASSIFICATION, DETECTION, Cell

_METRICS = {
    CLASSIFICATION: {"top-1": "classification/top1"},
    DETECTION: {
        "box AP": "bbox/AP",
        "mask AP": "segm/AP",
        "box AP50": "bbox/AP50",
        "mask AP50": "segm/AP50",
    },
}
CONVERGED = 40.0  # percent: the paper's "N/A stands for not converging or ... lower than 40"


def measures(cell: Cell, folder: Path) -> dict[str, float]:
    """Percentages by name, of the training in `folder`; an undefined AP (nothing found) is 0."""
    last = _last_metrics(folder / "metrics.json")
    found = {name: float(last.get(key, math.nan)) for name, key in _METRICS[cell.script].items()}
    if cell.script == DETECTION:
        return {name: 0.0 if math.isnan(value) else value for name, value in found.items()}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def has_converged(cell: Cell, found: dict[str, float]) -> bool:
    """By the paper's rule (table 4) where a learning rate is searched; else it has not diverged."""
    return len(cell.learning_rates) < 2 or found.get("top-1", 0.0) >= CONVERGED


def _last_metrics(path: Path) -> dict:
    metrics: dict = {}
    if path.is_file():
        for line in path.read_text().splitlines():
            metrics.update(json.loads(line))
    return metrics


def shifts(backbone: Path) -> dict[str, list[float]]:
    """The learned SReLU shifts of a backbone.pth by stage, for the paper's figure 3."""
    import torch

    state = torch.load(backbone, weights_only=True)["model"]
    stages: dict[str, list[float]] = {}
    for name, value in state.items():
        if name.endswith(".shift"):
            stages.setdefault(name.split(".")[0], []).extend(value.tolist())
    return stages
