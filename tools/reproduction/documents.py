"""Writes the tables of RESULTS.md and MODEL_ZOO.md from the stored results."""

import argparse
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tabulate import tabulate

from .cells import ROBUSTNESS, Cell, Folders, Table, jobs_of, read_result
from .report import as_text, figure3_as_markdown
from .tables import TABLES
from .training_run import REPOSITORY

DEFAULT_SEEDS = 3
# No other mark may be between the two: if an end is missing, nothing is replaced.
_MARKS = r"(<!-- {name} -->\n)(?:(?!<!-- ).)*?(<!-- end -->)"


def fill(page: Path, tables: list[Table], folders: Folders, seeds: int) -> list[str]:
    """Write each table between `<!-- NAME -->` and `<!-- end -->`; returns the names without marks.

    The text around the tables does not change. Full-scale tables have names as `table1-full`.
    """
    scale = folders.results.name
    parts = {table.name: section(table, folders, seeds) for table in tables}
    parts["figure3"] = figure3_as_markdown(scale, folders, seeds)
    if scale != "small":
        parts = {f"{name}-{scale}": part for name, part in parts.items()}
    return write_parts(page, parts)


def write_parts(page: Path, parts: dict[str, str]) -> list[str]:
    """Write each part between its marks in the page; returns the names without marks."""
    text, missing = replace_parts(page.read_text(), parts)
    page.write_text(text)
    print(f"Written: {page}" + (f"; it has no marks for {missing}" if missing else ""))
    return missing


def replace_parts(text: str, parts: dict[str, str]) -> tuple[str, list[str]]:
    """The text with each part between its marks, and the names without marks."""
    missing = []
    for name, part in parts.items():
        marks = re.compile(_MARKS.format(name=re.escape(name)), re.DOTALL)
        if not marks.search(text):
            missing.append(name)
        text = marks.sub(lambda found, part=part: f"{found[1]}{part}{found[2]}", text)
    return text, missing


def section(table: Table, folders: Folders, seeds: int) -> str:
    """The table in markdown, then how many cells were run, the machines and the hours."""
    wanted = jobs_of([table], seeds)
    found = [r for cell, seed in wanted if (r := read_result(folders, cell, seed))]
    options = "" if folders.results.name == "small" else f" --scale {folders.results.name}"
    options += "" if seeds == DEFAULT_SEEDS else f" --seeds {seeds}"
    text = (
        f"{table.title}. {table.measured()}: ours [the paper's].\n\n"
        f"{as_text(table, folders, seeds, 'github')}\n\n"
        f"`python tools/reproduce.py {table.name}{options}`; "
        f"{len(found)} of {len(wanted)} cells run"
    )
    if found:
        hours = sum(r["seconds"] for r in found) / 3600
        machines, versions, commits = (
            sorted({r[key] for r in found}) for key in ("machine", "torch", "commit")
        )
        text += (
            f", {hours:.1f} hours in all ({'; '.join(machines)}; torch {', '.join(versions)}; "
            f"commit {', '.join(commits)})"
        )
    return f"{text}.\n"


# MODEL_ZOO.md
SECTIONS = ("configs", "configs/imagenet", "configs/cifar")
_COLUMNS = ("config", "options", "paper", "ours", "hours, memory", "seed, commit, log")
_ANGLE = "MODEL.DECOUPLED.ANGULAR="  # makes no row: its value follows the figure
_MOST_SEEDS = 10
_Network = tuple[str, tuple[str, ...]]  # the yaml and the options of a row


def zoo_table(section: str, results: Path) -> str:
    """A folder of configs in markdown, with its full-scale runs: each yaml, then its other rows."""
    figures, cells = _by_network()
    folders = Folders(results, Path("output/reproduce/full"), Path("output/reproduce/data"))
    rows = []
    for path in sorted((REPOSITORY / section).glob("*.yaml")):
        config = f"{section}/{path.name}"
        own = [] if path.name.startswith("Base") else [(config, ())]
        for network in own + [n for n in cells if n[0] == config and n[1]]:
            options = f"`{' '.join(network[1])}`" if network[1] else ""
            paper = "; ".join(figures[network]) or "no figure"
            runs = [run for cell in cells[network] for run in _runs(cell, folders)]
            label = (f"`{path.name}`", options, paper)
            rows += [(*label, *run) for run in runs or [("not run", "-", "-")]]
    return tabulate(rows, _COLUMNS, tablefmt="github", disable_numparse=True)


def _by_network() -> tuple[dict[_Network, list[str]], dict[_Network, list[Cell]]]:
    """What the papers print for each network, and the cells that reproduce it."""
    tables: dict[tuple[_Network, str], list[str]] = defaultdict(list)
    cells: dict[_Network, list[Cell]] = defaultdict(list)
    for name in TABLES:
        for cell, figure in _cells_of(name):
            network = (cell.config, tuple(o for o in cell.opts if not o.startswith(_ANGLE)))
            cells[network] += [] if cell in cells[network] else [cell]
            if figure:
                title = name.replace("table", "table ") if name.startswith("table") else "slides"
                tables[network, _with_angle(cell, figure)].append(title)
    figures: dict[_Network, list[str]] = defaultdict(list)
    for (network, figure), names in tables.items():
        figures[network].append(f"{figure} ({', '.join(dict.fromkeys(names))})")
    return figures, cells


def _cells_of(name: str) -> Iterator[tuple[Cell, str]]:
    """The trainings of a full-scale table with the paper's figures, or ""."""
    table = TABLES[name]("full")
    unit = "" if table.measures[0] in ("top-1", "box AP") else f" {table.measures[0]}"
    for row in table.rows:
        for cell in dict.fromkeys(row.cells):
            if cell is not None and cell.script != ROBUSTNESS:
                own = zip(row.cells, row.paper, strict=True)
                figure = " / ".join(figure for other, figure in own if other == cell and figure)
                yield cell, figure and figure + unit


def _with_angle(cell: Cell, figure: str) -> str:
    angles = (opt.removeprefix(_ANGLE) for opt in cell.opts if opt.startswith(_ANGLE))
    return " ".join([figure, *angles])


def _runs(cell: Cell, folders: Folders) -> Iterator[tuple[str, str, str]]:
    """For each stored run: measures; hours and memory; seed, commit and file."""
    for seed in range(1, _MOST_SEEDS + 1):
        result = read_result(folders, cell, seed)
        if result:
            measures = ", ".join(f"{k} {v:.2f}" for k, v in result["measures"].items())
            memory = f"{result['memory_mb']} MB" if "memory_mb" in result else "not recorded"
            log = Path(os.path.relpath(folders.result(cell), REPOSITORY))
            yield (
                _with_angle(cell, measures),
                f"{result['seconds'] / 3600:.1f} h, {memory} ({result['machine']})",
                f"{seed}, {result['commit']}, [{log.name}]({log})",
            )


def main() -> int:
    """Write MODEL_ZOO.md; the exit code is 1 if the page has no marks for a section."""
    parser = argparse.ArgumentParser(
        description="Write the tables of MODEL_ZOO.md: each config with the paper's figure and the "
        "runs that `tools/reproduce.py TABLE --scale full` has stored."
    )
    add = parser.add_argument
    add("--results", type=Path, default=REPOSITORY / "results" / "full",
        help="folder of the stored full-scale results (default: results/full)")  # fmt: skip
    add("--page", type=Path, default=REPOSITORY / "MODEL_ZOO.md",
        help="the page to write (default: MODEL_ZOO.md)")  # fmt: skip
    args = parser.parse_args()
    parts = {section: zoo_table(section, args.results) + "\n" for section in SECTIONS}
    return int(bool(write_parts(args.page, parts)))
