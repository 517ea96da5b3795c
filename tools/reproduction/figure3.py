"""Figure 3 of the ISONet paper: where the learned shifts of SReLU end, by stage."""

from pathlib import Path

import numpy as np
from tabulate import tabulate

from d2_isonet.reporting.isometry.pictures import shift_figure

from . import small
from .cells import Cell, Folders, read_result
from .isonet_tables import classifier

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
    networks = {
        network: {
            stage: np.sum([d["counts"] for d in distributions], axis=0)
            for stage, distributions in stages.items()
        }
        for network, stages in found.items()
    }
    shift_figure(networks).savefig(picture, dpi=120, bbox_inches="tight")
    return picture
