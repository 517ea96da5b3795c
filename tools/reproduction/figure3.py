"""Figure 3 of the ISONet paper: where the learned shifts of SReLU end, by stage."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tabulate import tabulate

from . import small
from .cells import Cell, Folders, read_result
from .isonet_tables import classifier
from .measures import SHIFT_BINS

_LEAVES = {"ISONet": "isonet34_no_dropout", "R-ISONet": "risonet34_no_dropout"}


def cells(scale: str) -> dict[str, Cell]:
    """The networks whose shifts are shown, by their titles."""
    depth = small.DEPTHS[34] if scale == "small" else 34
    return {f"{name}, depth {depth}": classifier(scale, leaf, 34) for name, leaf in _LEAVES.items()}


def _by_stage(cell: Cell, folders: Folders, seeds: int) -> dict[str, list[dict]]:
    """The distributions of all seeds, by stage."""
    stages: dict[str, list[dict]] = {}
    for seed in range(1, seeds + 1):
        result = read_result(folders, cell, seed) or {"attempts": []}
        for attempt in result["attempts"]:
            if attempt["learning_rate"] == result["learning_rate"]:
                for stage, distribution in attempt["shifts"].items():
                    stages.setdefault(stage, []).append(distribution)
    return stages


def as_markdown(scale: str, folders: Folders, seeds: int) -> str:
    """Mean and deviation of the shifts by network and stage."""
    rows = [
        (
            network,
            stage,
            f"{np.mean([d['mean'] for d in found]):.3f}",
            f"{np.mean([d['deviation'] for d in found]):.3f}",
        )
        for network, cell in cells(scale).items()
        for stage, found in _by_stage(cell, folders, seeds).items()
    ]
    if not rows:
        return "not run\n"
    headers = ["network", "stage", "mean of b", "deviation of b"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True) + "\n"


def draw(scale: str, folders: Folders, seeds: int, picture: Path) -> Path | None:
    """A histogram a stage and network; None where no such cell has been run."""
    found = {n: s for n, cell in cells(scale).items() if (s := _by_stage(cell, folders, seeds))}
    if not found:
        return None
    edges = np.linspace(*SHIFT_BINS[:2], SHIFT_BINS[2] + 1)
    columns = max(len(stages) for stages in found.values())
    figure = Figure(figsize=(2.6 * columns, 2.2 * len(found)))
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(found), columns, squeeze=False, sharex=True)
    for row, (network, stages) in zip(axes, found.items(), strict=True):
        row[0].set_ylabel(network, fontsize=8)
        for axis, (stage, distributions) in zip(row, stages.items(), strict=False):
            counts = np.sum([d["counts"] for d in distributions], axis=0)
            axis.stairs(counts / counts.sum(), edges, fill=True)
            axis.axvline(-1, color="k", linewidth=0.5)
            axis.set_title(stage, fontsize=8)
    figure.supxlabel("shift b of SReLU after training (starts at -1)", fontsize=8)
    figure.savefig(picture, dpi=120, bbox_inches="tight")
    return picture
