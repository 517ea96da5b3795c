"""A table beside the paper's as text, json and picture, and figure 3 of the ISONet paper."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from tabulate import tabulate

from d2_isonet.reporting.isometry.pictures import shift_figure

from .cells import Cell, Folders, Row, Table, read_result
from .tables import classifier, depth_at

_NO_PERCENTAGE = "L2 effort"  # a column that is not drawn


@dataclass(frozen=True)
class Place:
    """One place of a table: the results of its seeds."""

    values: tuple[float, ...]  # one for each seed that converged
    done: int  # number of seeds that were run
    paper: str  # the paper's figure
    asked: int  # number of seeds to run; 0 if the table has no such place
    undefined: int = 0  # number of seeds that converged but have no such value
    smaller: int = 0  # number of seeds that converged, but not at the best learning rate

    @property
    def mean(self) -> float:
        return statistics.mean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    def __str__(self) -> str:
        if not self.done:
            return "not run" if self.asked else "-"
        seeds = "1 seed" if self.done == 1 else f"{self.done} seeds"
        failed = self.done - len(self.values) - self.undefined
        failures = f"{failed} of {seeds} {'fails' if self.done == 1 else 'fail'}"
        if not self.values:
            return "none" if self.undefined else f"N/A ({failures})"
        text = f"{self.mean:.1f}" + (f" ± {self.spread:.1f}" if len(self.values) > 1 else "")
        remarks = [failures] if failed else []
        if self.smaller:
            remarks.append(f"{self.smaller} of {seeds} at a smaller rate")
        elif self.done < max(3, self.asked) and not failed:
            remarks.append(seeds)
        return text + (f" ({', '.join(remarks)})" if remarks else "")


def places(table: Table, row: Row, folders: Folders, seeds: int) -> list[Place]:
    """The places of a row, one for each column."""
    found = zip(row.cells, table.measures, row.paper, strict=True)
    return [_place(cell, measure, figure, folders, seeds) for cell, measure, figure in found]


def _place(cell: Cell | None, measure: str, figure: str, folders: Folders, seeds: int) -> Place:
    if cell is None:
        return Place((), 0, figure, 0)
    results = [r for seed in range(1, seeds + 1) if (r := read_result(folders, cell, seed))]
    values = [r["measures"][measure] for r in results if measure in r["measures"]]
    defined = tuple(value for value in values if value is not None)
    rates = [r["learning_rate"] for r in results if r["learning_rate"] is not None]
    smaller = sum(rate < max(rates) for rate in rates)
    return Place(defined, len(results), figure, seeds, len(values) - len(defined), smaller)


def as_text(table: Table, folders: Folders, seeds: int, form: str = "simple") -> str:
    """Our results, each with the paper's figure in brackets if it has one."""
    lines = []
    for row in table.rows:
        shown = places(table, row, folders, seeds)
        lines.append([row.label, *(f"{p}" + (f"  [{p.paper}]" if p.paper else "") for p in shown)])
    headers = ["", *table.columns]
    return tabulate(lines, headers, tablefmt=form, disable_numparse=True)


def write_report(table: Table, folders: Folders, seeds: int, output: Path) -> None:
    """Print the table; write {table}.json and, if there is any result, {table}.png."""
    print(f"\n{table.title}\n{table.measured()}: ours [the paper's]\n")
    print(as_text(table, folders, seeds))
    output.mkdir(parents=True, exist_ok=True)
    content = [
        {"row": row.label, "column": column, "values": place.values, "seeds run": place.done,
         "paper": place.paper}
        for row in table.rows
        for column, place in zip(table.columns, places(table, row, folders, seeds), strict=True)
    ]  # fmt: skip
    (output / f"{table.name}.json").write_text(json.dumps(content, indent=1) + "\n")
    if any(entry["values"] for entry in content if entry["column"] != _NO_PERCENTAGE):
        picture = output / f"{table.name}.png"
        draw(table, folders, seeds, picture)
        print(f"\nPicture: {picture}")


def draw(table: Table, folders: Folders, seeds: int, picture: Path) -> None:
    """A bar for each percentage, grouped by column: mean over seeds, and every seed as a point."""
    drawn = [j for j, column in enumerate(table.columns) if column != _NO_PERCENTAGE]
    figure = Figure(figsize=(8, 1.5 + 0.32 * len(table.rows) * len(drawn)))
    axes = figure.subplots()
    height = 0.8 / len(drawn)
    for i, row in enumerate(table.rows):
        shown = places(table, row, folders, seeds)
        for k, place in enumerate(shown[j] for j in drawn):
            y = i + k * height
            if place.values:
                axes.barh(y, place.mean, height * 0.9, color=f"C{k}", alpha=0.6)
                axes.plot(place.values, [y] * len(place.values), "k.", markersize=4)
            else:
                axes.text(0, y, " N/A" if place.done else f" {place}", va="center", fontsize=8)
    centre = (len(drawn) - 1) * height / 2
    axes.set_yticks([i + centre for i in range(len(table.rows))], [r.label for r in table.rows])
    axes.set_ylim(len(table.rows) - 0.1, -0.6)  # the first row on top
    axes.set_xlabel(f"{table.measured(' / ')} in percent; points are seeds")
    axes.set_title(table.title, fontsize=9)
    if len(drawn) > 1:
        handles = [Patch(color=f"C{k}", alpha=0.6) for k in range(len(drawn))]
        names = [table.columns[j] for j in drawn]
        axes.legend(handles, names, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.savefig(picture, dpi=120, bbox_inches="tight")


# Figure 3: where the learned shifts of SReLU end, by stage.
_MOMENTS = ("mean", "deviation")


def figure3_cells(scale: str) -> dict[str, Cell]:
    """The networks whose shifts are shown, by their titles."""
    return {
        f"{name}, depth {depth_at(scale, 34)}": classifier(scale, f"{leaf}34_no_dropout", 34)
        for name, leaf in (("ISONet", "isonet"), ("R-ISONet", "risonet"))
    }


def _shifts(scale: str, folders: Folders, seeds: int) -> dict[str, dict[str, list[dict]]]:
    """The distributions of all seeds by network and stage, of the networks that were run."""
    networks: dict[str, dict[str, list[dict]]] = {}
    for network, cell in figure3_cells(scale).items():
        for seed in range(1, seeds + 1):
            result = read_result(folders, cell, seed) or {"attempts": []}
            for attempt in result["attempts"]:
                if attempt["learning_rate"] == result["learning_rate"]:
                    for stage, distribution in attempt["shifts"].items():
                        stages = networks.setdefault(network, {})
                        stages.setdefault(stage, []).append(distribution)
    return networks


def figure3_as_markdown(scale: str, folders: Folders, seeds: int) -> str:
    """Mean and deviation of the shifts by network and stage."""
    rows = [
        (network, stage, *(f"{np.mean([d[key] for d in found]):.3f}" for key in _MOMENTS))
        for network, stages in _shifts(scale, folders, seeds).items()
        for stage, found in stages.items()
    ]
    headers = ["network", "stage", *(f"{key} of b" for key in _MOMENTS)]
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return f"{table if rows else 'not run'}\n"


def draw_figure3(scale: str, folders: Folders, seeds: int, picture: Path) -> Path | None:
    """A histogram for each stage and network; None if no such cell was run."""
    counts = {
        network: {x: np.sum([d["counts"] for d in found], axis=0) for x, found in stages.items()}
        for network, stages in _shifts(scale, folders, seeds).items()
    }
    if not counts:
        return None
    shift_figure(counts).savefig(picture, dpi=120, bbox_inches="tight")
    return picture
