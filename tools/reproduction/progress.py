"""How long the trainings that run still take, read from what they write."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from .cells import Cell, Folders

_TAIL = 16384  # bytes of a metrics.json that are read: the last few of its lines


def time_left(jobs: Iterable[tuple[Cell, int]], folders: Folders) -> str:
    """ "resnet50/depth110 seed 2 at 0.1: 01:28 left; ..."; of a job that tells nothing its name."""
    return "; ".join(_state(cell, seed, folders) for cell, seed in jobs)


def _state(cell: Cell, seed: int, folders: Folders) -> str:
    name = f"{cell.name.partition('/')[2] or cell.name} seed {seed}"
    rates = cell.learning_rates or (None,)
    files = {folders.training(cell, seed, rate) / "metrics.json": rate for rate in rates}
    try:
        path = max(filter(Path.is_file, files), key=os.path.getmtime, default=None)
        seconds = _seconds_left(path) if path else None
    except FileNotFoundError:  # a training that is made anew removes its folder
        return name
    if path is None or seconds is None:
        return name
    at = "" if files[path] is None else f" at {files[path]:g}"
    return f"{name}{at}: {tqdm.format_interval(seconds)} left"


def _seconds_left(metrics: Path) -> float | None:
    """`eta_seconds` in the last line; None at the start, in an evaluation and behind the end."""
    with open(metrics, "rb") as file:
        file.seek(max(0, os.path.getsize(metrics) - _TAIL))
        lines = file.read().splitlines()
    try:
        return json.loads(lines[-1]).get("eta_seconds")
    except (IndexError, ValueError):  # nothing yet, or half a line
        return None
