"""Where the shifts of SReLU are: their distribution, and figure 3 of the ISONet paper."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from d2_isonet.isometry.measures import BINS


def shift_figure(networks: Mapping[str, Mapping[str, Sequence[int]]]) -> Figure:
    """A row of histograms a network, one a stage, from their counts in BINS."""
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
