"""MODEL_ZOO.md: a row for every yaml, from the papers' figures and the stored full-scale runs."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tabulate import tabulate

from .cells import REPOSITORY, ROBUSTNESS, Cell, Folders, read_result
from .tables import TABLES

SECTIONS = ("configs", "configs/imagenet", "configs/cifar")
_COLUMNS = ("config", "paper", "ours", "hours, memory", "seed, commit, log")
_ANGLE = "MODEL.DECOUPLED.ANGULAR="  # its values say enough
_MOST_SEEDS = 10


def zoo_table(section: str, results: Path) -> str:
    """The rows of the leaves in a folder of configs, in markdown.

    Args:
        results: where full-scale results lie, one json for each cell and seed.
    """
    figures, cells = _by_config()
    folders = Folders(results, Path("output/reproduce/full"), Path("output/reproduce/data"))
    rows = []
    for path in sorted((REPOSITORY / section).glob("*.yaml")):
        if not path.name.startswith("Base"):
            config = f"{section}/{path.name}"
            runs = [run for cell in cells[config] for run in _runs(cell, folders)]
            paper = "; ".join(figures[config]) or "no figure"
            rows += [(f"`{path.name}`", paper, *run) for run in runs or [("not run", "-", "-")]]
    return tabulate(rows, _COLUMNS, tablefmt="github", disable_numparse=True)


def _by_config() -> tuple[dict[str, list[str]], dict[str, list[Cell]]]:
    """What the papers print for each yaml, and the cells that repeat it."""
    tables: dict[tuple[str, str], list[str]] = defaultdict(list)
    cells: dict[str, list[Cell]] = defaultdict(list)
    for name in TABLES:
        for cell, figure in _cells_of(name):
            cells[cell.config] += [] if cell in cells[cell.config] else [cell]
            if figure:
                tables[cell.config, _with_options(cell, figure)].append(_title(name))
    figures: dict[str, list[str]] = defaultdict(list)
    for (config, figure), names in tables.items():
        figures[config].append(f"{figure} ({', '.join(dict.fromkeys(names))})")
    return figures, cells


def _cells_of(name: str) -> Iterator[tuple[Cell, str]]:
    """Cells of a table at full scale with the paper's figure, "" without one; no attacks."""
    table = TABLES[name]("full")
    unit = "" if table.measures[0] in ("top-1", "box AP") else f" {table.measures[0]}"
    for row in table.rows:
        figures = row.paper if len(table.measures) == 1 else (" / ".join(filter(None, row.paper)),)
        for cell, figure in zip(row.cells, figures, strict=True):
            if cell is not None and cell.script != ROBUSTNESS:
                yield cell, figure and figure + unit


def _with_options(cell: Cell, figure: str) -> str:
    return " ".join([figure, *(opt.removeprefix(_ANGLE) for opt in cell.opts)])


def _title(name: str) -> str:
    return name.replace("table", "table ") if name.startswith("table") else "slides"


def _runs(cell: Cell, folders: Folders) -> Iterator[tuple[str, str, str]]:
    """Measures; hours and memory; seed, commit and log of the runs of a cell that are stored."""
    for seed in range(1, _MOST_SEEDS + 1):
        result = read_result(folders, cell, seed)
        if result:
            measures = ", ".join(f"{k} {v:.2f}" for k, v in result["measures"].items())
            memory = f"{result['memory_mb']} MB" if "memory_mb" in result else "not recorded"
            log = Path(os.path.relpath(folders.result(cell, seed), REPOSITORY))
            yield (
                _with_options(cell, measures),
                f"{result['seconds'] / 3600:.1f} h, {memory} ({result['machine']})",
                f"{seed}, {result['commit']}, [{log.name}]({log})",
            )
