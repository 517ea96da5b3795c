"""The figures of an analysis."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from d2_isonet.isometry.measures import BINS, NEAR_ONE, distribution
from d2_isonet.modeling.stages import stage_of
from d2_isonet.reporting.figures import grid

from .analysis import Analysis

_NEAR: dict[str, Any] = {"color": "#3a9d5d", "alpha": 0.15, "linewidth": 0}
# of a legend above the axes
_ABOVE: dict[str, Any] = {
    "fontsize": 7, "loc": "upper left", "bbox_to_anchor": (0, 1.14), "frameon": False,
}  # fmt: skip


def shift_figure(networks: Mapping[str, Mapping[str, Sequence[int]]]) -> Figure:
    """Histograms, a row per network and a column per stage, from the counts in BINS."""
    edges = np.linspace(*BINS[:2], BINS[2] + 1)
    columns = max(len(stages) for stages in networks.values())
    figure = Figure(figsize=(2.6 * columns, 2.2 * len(networks)))
    axes = figure.subplots(len(networks), columns, squeeze=False, sharex=True)
    for row, (network, stages) in zip(axes, networks.items(), strict=True):
        row[0].set_ylabel(network, fontsize=8)
        for axis in row[len(stages) :]:
            axis.set_axis_off()
        for axis, (stage, counts) in zip(row, stages.items(), strict=False):
            axis.stairs(np.divide(counts, np.sum(counts)), edges, fill=True)
            axis.axvline(-1, color="k", linewidth=0.5)
            axis.set_title(stage, fontsize=8)
    figure.supxlabel("shift b of SReLU (the line: -1, where it starts)", fontsize=8)
    figure.tight_layout()
    return figure


def figures(analysis: Analysis) -> dict[str, Figure]:
    """The figures that have something to show, by the names of their files."""
    drawn = {"singular_values": singular_value_figure(analysis)}
    drawn["histograms"] = histogram_figure(analysis)
    if len(analysis.signals) > 1:
        drawn["signals"] = signal_figure(analysis)
    if analysis.shifts:
        counts = {stage: distribution(x)["counts"] for stage, x in analysis.shifts.items()}
        drawn["shifts"] = shift_figure({"share of channels": counts})
    if analysis.scales:
        drawn["residual_scales"] = scale_figure(analysis)
    return drawn


def singular_value_figure(analysis: Analysis) -> Figure:
    """The range of each convolution's singular values, their middle 90 % and median."""
    convs, colours = analysis.convolutions, _colours(analysis)
    figure = Figure(figsize=(max(7, 2 + 0.17 * len(convs)), 3.6))
    axes = figure.subplots()
    axes.axhspan(*NEAR_ONE, **_NEAR)
    for x, conv in enumerate(convs):
        values = conv.singular_values.double().numpy()
        if not np.isfinite(values).all():
            axes.text(x, 1, "not finite", rotation=90, ha="center", fontsize=6, color="red")
            continue
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        colour = colours[conv.stage]
        axes.vlines(x, values.min(), values.max(), color=colour, linewidth=1)
        axes.vlines(x, low, high, color=colour, linewidth=4, alpha=0.6)
        axes.plot(x, middle, "o", color=colour, markersize=5, markeredgecolor="white")
    axes.set_xlim(-1, len(convs))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("singular values")
    patches = [Patch(color=colour, label=stage) for stage, colour in colours.items()]
    axes.legend(handles=patches, ncols=min(6, len(patches)), **_ABOVE)
    return _finished(figure, [conv.name for conv in convs], fontsize=6)


def histogram_figure(analysis: Analysis) -> Figure:
    """The singular values of each stage."""
    stages = {s: x for s, x in analysis.stages().items() if torch.isfinite(x).all()}
    figure, axes = grid(len(stages), panel=(2.3, 2.1), columns=5)
    colours = _colours(analysis)
    for axis, (stage, values) in zip(axes, stages.items(), strict=True):
        edges = np.linspace(0, max(1.5, values.max().item()), 61)
        counts, _ = np.histogram(values.numpy(), edges)
        axis.axvspan(*NEAR_ONE, **_NEAR)
        axis.stairs(100 * counts / counts.sum(), edges, fill=True, color=colours[stage])
        axis.set_title(stage, fontsize=8)
    figure.supxlabel("singular value", fontsize=8)
    figure.supylabel("share, %", fontsize=8)
    return figure


def signal_figure(analysis: Analysis) -> Figure:
    """Forward RMS relative to the first block, and backward norm of the gradient."""
    points = analysis.signals[1:]
    names = [point.name for point in points]
    figure = Figure(figsize=(max(7, 2 + 0.25 * len(points)), 3.4))
    axes = figure.subplots()
    axes.axhspan(1 / analysis.limit, analysis.limit, **_NEAR)
    axes.axhline(1, color="k", linewidth=0.5)
    first = points[0].rms or float("nan")
    forward = _drawable(point.rms / first for point in points)
    backward = _drawable(point.gradient for point in points)
    axes.plot(names, forward, "o-", color="#1f77b4", markersize=3.5,
              label="forward: RMS / first block's")  # fmt: skip
    axes.plot(names, backward, "s-", color="#d62728", markersize=3.5,
              label="backward: norm of the gradient")  # fmt: skip
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.5 / analysis.limit), max(high, 2 * analysis.limit))
    axes.legend(ncols=2, **_ABOVE)
    return _finished(figure, names, fontsize=7)


def scale_figure(analysis: Analysis) -> Figure:
    """The residual scale of each block: if it has one per channel, their mean and range."""
    figure = Figure(figsize=(max(7, 2 + 0.25 * len(analysis.scales)), 2.6))
    axes = figure.subplots()
    colours = _colours(analysis)
    for x, (block, scale) in enumerate(analysis.scales.items()):
        axes.bar(x, scale.mean().item(), color=colours.get(stage_of(block), "grey"))
        if len(scale) > 1:
            axes.vlines(x, scale.min().item(), scale.max().item(), color="k", linewidth=1)
    axes.axhline(0, color="k", linewidth=0.5)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.1), max(high, 0.1))  # as initialized, all are zero
    axes.set_ylabel("residual scale s")
    return _finished(figure, list(analysis.scales), fontsize=7)


def _drawable(values: Iterable[float]) -> list[float]:
    """The values, with NaN for those that a logarithmic axis cannot show."""
    return [value if 0 < value < float("inf") else float("nan") for value in values]


def _colours(analysis: Analysis) -> dict[str, str]:
    """The colour of each stage, the same in all figures."""
    stages = dict.fromkeys(conv.stage for conv in analysis.convolutions)
    return {stage: f"C{i % 10}" for i, stage in enumerate(stages)}


def _finished(figure: Figure, names: Sequence[str], fontsize: int) -> Figure:
    """The figure of one axis, with a name at each place of x."""
    (axes,) = figure.axes
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=fontsize)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure
