"""An analysis printed, and written as json, pictures and one HTML page."""

import json
import math
from pathlib import Path

from matplotlib.figure import Figure
from pages.page import Page
from pages.tables import Cell

from . import tables
from .analysis import Analysis, as_json
from .pictures import figures

_CAPTIONS = {
    "singular_values": "Thin line: from the smallest to the largest; thick: the middle 90 %; "
    "point: the median. Green: 0.9 to 1.1.",
    "histograms": "By stage, all convolutions together. Green: 0.9 to 1.1.",
    "signals": "Green: within the limit. Forward from left to right, backward from right to left.",
    "shifts": "Figure 3 of the ISONet paper.",
    "residual_scales": "0: the block is its shortcut.",
}
_READING = {
    "singular_values": "A convolution is an isometry where all its singular values are 1: it then "
    "keeps the length of every signal, or of every gradient. They are those of the convolution "
    "with circular boundary on a grid of {n} x {n} output pixels, exactly, without the zeros that "
    "the weight's shape forces.",
    "table": "excess: the orthogonal penalty minus the least that this shape can have; 0 is as "
    "orthogonal as it can be. least: that minimum. condition: largest / smallest.",
    "signals": "RMS: root of the mean square of a block's output. |y| / |x|: its norm relative to "
    "the network's input. gradient: the norm of what a random cotangent of norm 1 at the end "
    "becomes when it comes back here. x before, x after: what the block multiplies them by.",
    "shifts": "max(y, b): the more negative b, the closer to the identity; 0 is ReLU.",
    "residual_scales": "y = activation(shortcut(x) + s * branch(x)).",
}


def print_analysis(analysis: Analysis) -> None:
    network = analysis.network
    print(f"\n{network.title}, weights {network.weights}")
    for note in network.notes:
        print(f"Note: {note}")
    n = analysis.frequencies
    print(f"\nSingular values of each convolution on a circular grid of {n} x {n} output pixels\n")
    print(tables.as_text(tables.convolution_rows(analysis)))
    print(f"\n{tables.as_text(tables.stage_rows(analysis))}")
    if analysis.scales:
        print(f"\nResidual scales\n\n{tables.as_text(tables.scale_rows(analysis))}")
    print(f"\nSignals of {len(network.images)} images {network.image_source}\n")
    print(tables.as_text(tables.signal_rows(analysis)))
    print(f"\n{tables.verdict(analysis)}")
    for line in analysis.deviations:
        print(f"  {line}")


def write_analysis(analysis: Analysis, output: Path) -> Path:
    """isometry.json, a PNG a figure and isometry.html; returns the last."""
    output.mkdir(parents=True, exist_ok=True)
    content = json.dumps(as_json(analysis), indent=1) + "\n"
    (output / "isometry.json").write_text(content, encoding="utf-8")
    drawn = figures(analysis)
    for name, figure in drawn.items():
        figure.savefig(output / f"{name}.png", dpi=120, bbox_inches="tight")
    return make_page(analysis, drawn).write(output / "isometry.html")


def make_page(analysis: Analysis, drawn: dict[str, Figure]) -> Page:
    network = analysis.network
    page = Page(f"Isometry of {network.title}", subtitle=f"weights: {network.weights}")
    page.numbers(tables.summary(analysis))
    page.note(tables.verdict(analysis), "warning" if analysis.deviations else "info")
    if analysis.deviations:
        page.code("\n".join(analysis.deviations))
    for note in network.notes:
        page.note(note)
    _add_singular_values(page, analysis, drawn)
    if "signals" in drawn:
        text = f"Of {len(network.images)} images {network.image_source}. {_READING['signals']}"
        page.section("Signals through depth", text)
        _add_figure(page, drawn, "signals")
        page.table(tables.signal_rows(analysis), formats=tables.FORMATS)
    if "shifts" in drawn:
        page.section("Shifts of SReLU", _READING["shifts"])
        _add_figure(page, drawn, "shifts")
    if "residual_scales" in drawn:
        page.section("Residual scales", _READING["residual_scales"])
        _add_figure(page, drawn, "residual_scales")
        page.table(tables.scale_rows(analysis), fold="Table")
    return page


def _add_singular_values(page: Page, analysis: Analysis, drawn: dict[str, Figure]) -> None:
    text = _READING["singular_values"].format(n=analysis.frequencies)
    page.section("Singular values of the convolutions", text)
    _add_figure(page, drawn, "singular_values")
    page.table(tables.stage_rows(analysis), formats=tables.FORMATS)
    _add_figure(page, drawn, "histograms")
    page.section("Every convolution", _READING["table"])
    rows = [_marked(row) for row in tables.convolution_rows(analysis)]
    page.table(rows, formats=tables.FORMATS)


def _marked(row: dict) -> dict:
    """What no kernel of this shape should be, and what none can surpass, in colour."""
    near, condition = row[tables.NEAR], row["condition"]
    marked = dict(row)
    if near > 99.95:
        marked[tables.NEAR] = Cell(near, f"{near:.1f}", "good")
    if math.isinf(condition):
        marked["condition"] = Cell(condition, "inf", "bad", "a singular value is 0")
    return marked


def _add_figure(page: Page, drawn: dict[str, Figure], name: str) -> None:
    if name in drawn:
        page.figure(drawn[name], _CAPTIONS[name])
