"""Curves, matrices and bars that compare runs, in one style."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from d2_isonet.reporting.page.page import plain_text

COLOURS = ("#1f5fbf", "#d95f02", "#1b9e77", "#7b3fb5", "#c2185b", "#8a6d00", "#00838f", "#5d4037")
MOST_POINTS = 1500  # of a line: more would be invisible and make the page large
Series = tuple[list[int], list[float]]  # iterations and values of one quantity


def colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def grid(
    number: int, panel: tuple[float, float] = (3.9, 2.7), columns: int = 3
) -> tuple[Figure, np.ndarray]:
    """A figure of `number` panels, each of `panel` inches, and its axes."""
    columns = max(1, min(columns, number))
    rows = max(1, -(-number // columns))
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.grid(True, color="#e3e6ec", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[number:]:
        axis.set_visible(False)
    return figure, axes[:number]


def curves(
    panels: Mapping[str, Mapping[str, Series]], names: Sequence[str], markers: bool = False
) -> Figure | None:
    """A panel per quantity and a line per run over iterations; None if there are no values.

    Args:
        panels: title -> name of the run -> iterations and values.
        names: of all runs; the place of a name is its colour.
        markers: draw points at the values.
    """
    panels = {t: {k: v for k, v in runs.items() if len(v[0])} for t, runs in panels.items()}
    panels = {title: runs for title, runs in panels.items() if runs}
    if not panels:
        return None
    figure, axes = grid(len(panels))
    for axis, (title, runs) in zip(axes, panels.items(), strict=True):
        for name, (iterations, values) in runs.items():
            step = -(-len(iterations) // MOST_POINTS)
            marker = "o" if markers or len(iterations) == 1 else ""
            axis.plot(iterations[::step], values[::step], color=colour(names.index(name)),
                      linewidth=1.4, marker=marker, markersize=3.5,
                      label=plain_text(name))  # fmt: skip
        axis.set_title(plain_text(title), fontsize=10, loc="left")
        axis.set_xlabel("iteration", fontsize=8)
    add_legend(figure, names)
    return figure


def add_legend(figure: Figure, names: Sequence[str]) -> None:
    """The names of several runs above the panels."""
    if len(names) > 1:
        lines = [Line2D([], [], color=colour(i), linewidth=2) for i in range(len(names))]
        figure.legend(lines, list(map(plain_text, names)), loc="outside upper left",
                      frameon=False, ncols=min(4, len(names)), fontsize=9)  # fmt: skip


def matrix(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], labels: np.ndarray | None
) -> Figure:
    """Numbers from 0 to 1 as shades; if there is room, each with its label or in percent.

    Args:
        values: (R, C); NaN for empty rows.
        labels: (R, C), or None for percent.
    """
    side = min(0.52, 13 / max(values.shape))
    size = (2.4 + side * len(columns), 1.6 + side * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    axis.imshow(np.nan_to_num(values), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(columns)), map(_short, columns), rotation=45, ha="right",
                    fontsize=8, rotation_mode="anchor")  # fmt: skip
    axis.set_yticks(range(len(rows)), map(_short, rows), fontsize=8)
    axis.set(xlabel="predicted", ylabel="truth")
    if side > 0.4:
        for (row, column), value in np.ndenumerate(values):
            if value > 0:
                text = f"{100 * value:.0f}" if labels is None else str(labels[row, column])
                axis.text(column, row, text, ha="center", va="center", fontsize=8,
                          color="white" if value > 0.55 else "black")  # fmt: skip
    return figure


def _short(name: str, letters: int = 22) -> str:
    return plain_text(name if len(name) <= letters else name[: letters - 1] + "…")


def bars(
    groups: Sequence[str], values: Mapping[str, Sequence[float]], names: Sequence[str], unit: str
) -> Figure:
    """Horizontal bars: a group per name of `groups`, a bar per run of `values`, at least one."""
    size = (7.2, 0.6 + 0.32 * len(groups) * max(1, len(values) * 0.6))
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    height = 0.8 / len(values)
    for place, (name, own) in enumerate(values.items()):
        y = np.arange(len(groups)) + (place - (len(values) - 1) / 2) * height
        drawn = axis.barh(y, own, height * 0.92, color=colour(names.index(name)))
        axis.bar_label(drawn, fmt="%.1f", fontsize=8, padding=3)
    axis.set_yticks(range(len(groups)), map(plain_text, groups), fontsize=9)
    axis.invert_yaxis()
    axis.tick_params(axis="x", labelsize=8)
    axis.margins(x=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel(unit, fontsize=9)
    add_legend(figure, names)
    return figure
