"""Prints an analysis, and writes it as json, pictures and one HTML page."""

import json
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from tabulate import tabulate

from d2_isonet.isometry.measures import ConvolutionIsometry, share_near_one
from d2_isonet.reporting.page.page import Cell, Page
from d2_isonet.utils.messages import show

from .analysis import Analysis, as_json
from .pictures import figures

NEAR = "near 1, %"
FORMATS = {"min": ".3f", "max": ".3f", "condition": ".3g", NEAR: ".1f", "excess": ".5g",
           "least": "g", "RMS": ".3g", "|y| / |x|": ".3g", "x before": ".3g", "gradient": ".3g",
           "x after": ".3g", "mean of b": ".3f", "deviation of b": ".3f"}  # fmt: skip
_CAPTIONS = {
    "singular_values": "Thin line: from the smallest to the largest; thick: the middle 90 %; "
    "point: the median. Green: 0.9 to 1.1.",
    "histograms": "By stage, all convolutions together. Green: 0.9 to 1.1.",
    "signals": "Green: within the limit. Forward runs to the right, backward to the left.",
    "shifts": "Figure 3 of the ISONet paper.",
    "residual_scales": "0: the block is its shortcut.",
}
_READING = {
    "singular_values": "A convolution is an isometry if all its singular values are 1: it then "
    "keeps the length of every signal, or of every gradient. These are the exact values of the "
    "convolution with circular boundary on a grid of {n} x {n} output pixels, without the zeros "
    "that the shape of the weight forces.",
    "table": "least: the smallest orthogonal penalty that this shape allows. excess: the penalty "
    "minus this minimum; 0 is as orthogonal as possible. condition: largest / smallest.",
    "signals": "RMS: root of the mean square of a block's output. |y| / |x|: its norm relative to "
    "the network's input. gradient: the norm here of a random cotangent that starts with norm 1 "
    "at the end. x before, x after: the factors by which the block multiplies RMS and gradient.",
    "shifts": "max(y, b): the more negative b, the closer to the identity; 0 is ReLU.",
    "residual_scales": "y = activation(shortcut(x) + s * branch(x)).",
}


def print_analysis(analysis: Analysis) -> None:
    network, n = analysis.network, analysis.frequencies
    notes = [f"Note: {note}" for note in network.notes]
    show("\n".join([f"\n{network.title}, weights {network.weights}", *notes]))
    print(f"\nSingular values of each convolution on a circular grid of {n} x {n} output pixels\n")
    show(as_text(convolution_rows(analysis)))
    show(f"\n{as_text(stage_rows(analysis))}")
    if analysis.scales:
        show(f"\nResidual scales\n\n{as_text(scale_rows(analysis))}")
    print(f"\nSignals of {len(network.images)} images {network.image_source}\n")
    show(as_text(signal_rows(analysis)))
    show("\n  ".join([f"\n{verdict(analysis)}", *analysis.deviations]))


def as_text(rows: list[dict]) -> str:
    """The table for the terminal."""
    shown = [
        {k: format(x, FORMATS.get(k, ".4g")) if isinstance(x, float) else x for k, x in row.items()}
        for row in rows
    ]
    numbers = [isinstance(value, int | float) for value in rows[-1].values()]
    align = ["right" if number else "left" for number in numbers]
    return tabulate(shown, headers="keys", disable_numparse=True, colalign=align)


def write_analysis(analysis: Analysis, output: Path) -> Path:
    """Write isometry.json, a PNG per figure, and isometry.html; returns the path of the page."""
    output.mkdir(parents=True, exist_ok=True)
    content = json.dumps(as_json(analysis), indent=1) + "\n"
    (output / "isometry.json").write_text(content, encoding="utf-8")
    drawn = figures(analysis)
    for name, figure in drawn.items():
        figure.savefig(output / f"{name}.png", dpi=120, bbox_inches="tight")
    return make_page(analysis, drawn).write(output / "isometry.html")


def make_page(analysis: Analysis, drawn: dict[str, Figure]) -> Page:
    """The page of an analysis with those of its figures that are `drawn`."""
    network = analysis.network
    page = Page(f"Isometry of {network.title}", subtitle=f"weights: {network.weights}")

    def add_figure(name: str) -> None:
        if name in drawn:
            page.figure(drawn[name], _CAPTIONS[name])

    page.numbers(summary(analysis))
    page.note(verdict(analysis), "warning" if analysis.deviations else "info")
    if analysis.deviations:
        page.code("\n".join(analysis.deviations))
    for note in network.notes:
        page.note(note)
    text = _READING["singular_values"].format(n=analysis.frequencies)
    page.section("Singular values of the convolutions", text)
    add_figure("singular_values")
    page.table(stage_rows(analysis), formats=FORMATS)
    add_figure("histograms")
    page.section("Every convolution", _READING["table"])
    page.table([_marked(row) for row in convolution_rows(analysis)], formats=FORMATS)
    if "signals" in drawn:
        text = f"Of {len(network.images)} images {network.image_source}. {_READING['signals']}"
        page.section("Signals through depth", text)
        add_figure("signals")
        page.table(signal_rows(analysis), formats=FORMATS)
    if "shifts" in drawn:
        page.section("Shifts of SReLU", _READING["shifts"])
        add_figure("shifts")
    if "residual_scales" in drawn:
        page.section("Residual scales", _READING["residual_scales"])
        add_figure("residual_scales")
        page.table(scale_rows(analysis), fold="Table")
    return page


def _marked(row: dict) -> dict:
    """The row with singular convolutions and perfect isometries in colour."""
    marked = dict(row)
    if row[NEAR] > 99.95:
        marked[NEAR] = Cell(row[NEAR], f"{row[NEAR]:.1f}", "good")
    if math.isinf(row["condition"]):
        marked["condition"] = Cell(math.inf, "inf", "bad", "a singular value is 0")
    return marked


def convolution_rows(analysis: Analysis) -> list[dict]:
    """A row per convolution."""
    return [
        {"convolution": conv.name, "weight": described(conv), "min": conv.smallest,
         "max": conv.largest, "condition": conv.condition, NEAR: 100 * conv.share_near_one,
         "excess": conv.excess, "least": conv.minimum}
        for conv in analysis.convolutions
    ]  # fmt: skip


def described(conv: ConvolutionIsometry) -> str:
    """ "128x64 3x3 /2": outputs x inputs per group, kernel; stride, dilation, groups if not 1."""
    outputs, inputs, *kernel = conv.shape
    text = f"{outputs}x{inputs} {kernel[0]}x{kernel[1]}"
    for sign, pair in (("/", conv.stride), ("d", conv.dilation)):
        if pair != (1, 1):
            text += f" {sign}{pair[0]}" + ("" if pair[0] == pair[1] else f"x{pair[1]}")
    return text + (f" g{conv.groups}" if conv.groups > 1 else "")


def stage_rows(analysis: Analysis) -> list[dict]:
    """A row per stage; the shifts b of SReLU have columns if one of the stages has shifts."""
    rows: list[dict] = []
    stages = analysis.stages()
    for stage, values in stages.items():
        convs = [conv for conv in analysis.convolutions if conv.stage == stage]
        row = {"stage": stage, "convolutions": len(convs), "min": values.min().item(),
               "max": values.max().item(), NEAR: 100 * share_near_one(values),
               "excess": sum(conv.excess for conv in convs)}  # fmt: skip
        if analysis.shifts.keys() & stages:
            b = analysis.shifts.get(stage)
            row["mean of b"] = None if b is None else b.mean().item()
            row["deviation of b"] = None if b is None else b.std(correction=0).item()
        rows.append(row)
    return rows


def scale_rows(analysis: Analysis) -> list[dict]:
    """A row per block that has a residual scale."""
    return [
        {"block": block, "scale": scale.mean().item()}
        | ({"min": scale.min().item(), "max": scale.max().item()} if len(scale) > 1 else {})
        for block, scale in analysis.scales.items()
    ]


def signal_rows(analysis: Analysis) -> list[dict]:
    """A row per point of the chain, with the factors of the block that ends there."""
    signals = analysis.signals
    return [
        {"output of": signal.name, "RMS": signal.rms,
         "x before": signal.rms / before.rms if before and before.rms else None,
         "|y| / |x|": signal.norm, "gradient": signal.gradient,
         "x after": before.gradient / signal.gradient if before and signal.gradient else None}
        for before, signal in zip([None, *signals], signals, strict=False)
    ]  # fmt: skip


def summary(analysis: Analysis) -> dict[str, str]:
    """The main numbers of the whole network."""
    convs = analysis.convolutions
    values = torch.cat(list(analysis.stages().values()))
    return {
        "convolutions": str(len(convs)),
        "singular values": f"{values.min().item():.3g} to {values.max().item():.3g}",
        "in 0.9 to 1.1": f"{100 * share_near_one(values):.1f} %",
        "rank-deficient": str(sum(math.isinf(conv.condition) for conv in convs)),
        "excess of the penalty": f"{sum(conv.excess for conv in convs):.4g}",
    }


def verdict(analysis: Analysis) -> str:
    """The rule, and the number of its violations."""
    rule = (
        f"Rule: a factor above {analysis.limit:g} or below {1 / analysis.limit:g} across one block "
        "or from the first block's output to the last's."
    )
    if not analysis.deviations:
        return f"{rule} No signal vanishes or explodes."
    return f"{rule} {len(analysis.deviations)} found."
