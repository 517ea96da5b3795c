"""Sections on a detector's results: numbers, classes, curves, errors, sizes, confusion."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from d2_isonet.reporting.figures import add_legend, bars, colour, grid, matrix
from d2_isonet.reporting.page.page import Cell, Page, plain_text

from .datasets import DatasetResults
from .detection import STATS, Analysis, confusion

MISSED, BACKGROUND = "(missed)", "(background)"
_MOST_CLASSES = 40  # of a matrix; above it there is only the table
_MOST_PAIRS = 200
_MOST_CURVES = 12
_SHARE = "% of the class"
# COCO's letter -> name, least and largest area
_SIZES = {"s": ("small", 0, 32**2), "m": ("medium", 32**2, 96**2), "l": ("large", 96**2, 1e10)}
_TITLES = {"bbox": "Boxes", "segm": "Masks"}
_KINDS = {
    "Cls": ("classification", "in place (IoU >= 0.5 with an object of another class), wrong class"),
    "Loc": ("localization", "right class, badly placed (IoU with such an object 0.1 to 0.5)"),
    "Both": ("both", "wrong class and badly placed (IoU 0.1 to 0.5 with one of another class)"),
    "Dupe": ("duplicate", "right, but the object already has a detection with a higher score"),
    "Bkg": ("background", "overlaps no object (IoU below 0.1 with all)"),
    "Miss": ("missed", "an object without a detection and without an error of the first two kinds"),
}


def _measured(dataset: DatasetResults) -> list[tuple[str, dict[str, Analysis]]]:
    """The title of each measured task, and name of the run -> its analysis."""
    return [(_TITLES[task], by_run) for task, by_run in dataset.analyses.items() if by_run]


def add_numbers(page: Page, dataset: DatasetResults) -> None:
    """COCO's twelve numbers, a row per run and task."""
    rows = [
        {"run": name, "of": title.lower(), **analysis.stats}
        for title, analyses in _measured(dataset)
        for name, analysis in analyses.items()
    ]
    if rows:
        caption = (
            "COCO's measures in percent. AP: mean over IoU 0.50 to 0.95; s, m, l: small, medium, "
            "large; AR: recall with 1, 10 or the largest number of detections per image."
        )
        page.table(rows, caption=caption, formats=dict.fromkeys(STATS, ".1f"))


def add_classes(page: Page, dataset: DatasetResults) -> None:
    """A table per task; with several runs, their AP side by side and its change."""
    tables = {task: dataset.rows(task) for task in _TITLES}
    if any(tables.values()):
        page.subsection("Class by class")
    for task, by_run in tables.items():
        if not by_run:
            continue
        if len(by_run) > 1:
            rows = side_by_side(by_run, "objects", ("AP", "AP50"))
        else:
            (own,) = by_run.values()
            rows = [{k: v for k, v in row.items() if k != "category_id"} for row in own]
        columns = [key for key in rows[0] if key.startswith(("AP", "AR")) or ": AP" in key]
        page.table(rows, caption=_TITLES[task], formats=dict.fromkeys(columns, ".1f"))


def side_by_side(tables: dict[str, list[dict]], number: str, measures: Sequence[str]) -> list[dict]:
    """A row per class with the measures of each run and the change of the first measure.

    Args:
        tables: name of the run -> a row per class.
        number: the key of the number of objects or images.
    """
    first = next(iter(tables))
    by_class = {run: {row["class"]: row for row in rows} for run, rows in tables.items()}
    rows = []
    for name, base in by_class[first].items():
        line = {"class": name, number: base.get(number)}
        for run, table in by_class.items():
            own = table.get(name, {})
            line |= {f"{run}: {measure}": own.get(measure) for measure in measures}
            if run != first:
                line[f"{run}: change"] = delta(own.get(measures[0]), base.get(measures[0]))
        rows.append(line)
    return rows


def delta(value: float | None, base: float | None) -> Cell:
    """The change from `base`, in colour."""
    if value is None or base is None:
        return Cell(None)
    change = value - base
    kind = "good" if change > 0.05 else "bad" if change < -0.05 else "muted"
    return Cell(change, f"{change:+.1f}", kind)


def add_precision_recall(page: Page, dataset: DatasetResults) -> None:
    """Curves over all classes at IoU 0.5, 0.75 and on average; then class by class at 0.5."""
    page.subsection("Precision and recall")
    every = slice(None)
    panels = {"IoU 0.50": 0, "IoU 0.75": 5, "mean over IoU 0.50 to 0.95": every}
    for title, analyses in _measured(dataset):
        figure, axes = grid(len(panels))
        for axis, (label, place) in zip(axes, panels.items(), strict=True):
            _draw_curves(axis, dataset, analyses, (place, every, every))
            axis.set_title(label, fontsize=10, loc="left")
        add_legend(figure, dataset.names)
        page.figure(figure, f"{title}: precision at each recall, mean over the classes.")
    analyses = dataset.analyses["bbox"]
    rows = next(iter(analyses.values())).rows
    places = [k for k, row in enumerate(rows) if row["objects"]]
    places = sorted(places, key=lambda k: -rows[k]["objects"])[:_MOST_CURVES]
    if not places:
        return
    figure, axes = grid(len(places), panel=(2.9, 2.2), columns=4)
    for axis, k in zip(axes, places, strict=True):
        _draw_curves(axis, dataset, analyses, (0, every, slice(k, k + 1)))
        axis.set_title(plain_text(rows[k]["class"])[:40], fontsize=9, loc="left")
    add_legend(figure, dataset.names)
    are_all = len(rows) <= len(places)
    which = "each class" if are_all else f"the {_MOST_CURVES} classes with most objects"
    page.figure(figure, f"Boxes, IoU 0.50: {which}.")


def _draw_curves(
    axis: Axes, dataset: DatasetResults, analyses: dict[str, Analysis], part: tuple
) -> None:
    """A curve per run.

    Args:
        part: of the precision (T, R, K); the mean is over all axes but R, without -1.
    """
    for name, analysis in analyses.items():
        precision = np.ma.masked_less(analysis.precision[part], 0)
        places = tuple(i for i in range(precision.ndim) if i != precision.ndim - 2)
        line_colour = colour(dataset.names.index(name))
        axis.plot(analysis.recalls, precision.mean(axis=places), color=line_colour, linewidth=1.4)
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.set_xlabel("recall", fontsize=8)
        axis.set_ylabel("precision", fontsize=8)


def add_errors(page: Page, dataset: DatasetResults) -> None:
    """Each kind of error: its definition and, for each run, its number and its cost in AP."""
    page.subsection(
        "Kinds of error",
        "dAP: the AP50 gained if all errors of this kind were fixed (TIDE): the best detection of "
        "each free object is corrected and the others are removed; missed objects are not counted. "
        "All detections count, with any score. Gains do not add up.",
    )
    for title, analyses in _measured(dataset):
        gains = {run: analysis.errors["delta_ap"] for run, analysis in analyses.items()}
        rows = []
        for kind, (name, definition) in _KINDS.items():
            row = {"error": name, "a detection that is": definition}
            for run, analysis in analyses.items():
                prefix = f"{run}: " if len(analyses) > 1 else ""
                row[f"{prefix}dAP"] = gains[run][kind]
                row[f"{prefix}number"] = analysis.errors["counts"][kind]
            rows.append(row)
        values = {run: [gain[kind] for kind in _KINDS] for run, gain in gains.items()}
        kinds, unit = [row["error"] for row in rows], f"{title}: dAP (AP50, percent)"
        page.figure(bars(kinds, values, dataset.names, unit), f"{title}.")
        page.table(rows, formats={key: ".2f" for key in rows[0] if key.endswith("dAP")})


def add_sizes(page: Page, dataset: DatasetResults) -> None:
    """AP and AR of small, medium and large objects, and their number."""
    page.subsection(
        "By size of the object", "Small is below 32 x 32 pixels of area, large from 96 x 96."
    )
    rows = []
    for title, analyses in _measured(dataset):
        for name, analysis in analyses.items():
            areas = [a["area"] for a in analysis.truth.dataset["annotations"] if not a["iscrowd"]]
            for letter, (size, least, largest) in _SIZES.items():
                # a border belongs to both sizes, as in COCO
                number = sum(least <= area <= largest for area in areas)
                measures = {m: analysis.stats[f"{m}{letter}"] for m in ("AP", "AR")}
                row = {"run": name, "of": title.lower(), "size": size, "objects": number}
                rows.append(row | measures)
    page.table(rows, formats={"AP": ".1f", "AR": ".1f"})


def add_confusion(page: Page, dataset: DatasetResults) -> None:
    """Objects by true and predicted class; with many classes, the most frequent confusions."""
    page.subsection(
        "Confusion of classes",
        "Boxes, IoU 0.5. Each detection, the highest score first, takes the object that it "
        "overlaps most, of any class. Shades are shares of the objects of the row's class.",
    )
    for name, analysis in dataset.analyses["bbox"].items():
        classes = [row["class"] for row in analysis.rows]
        counts = confusion(analysis.truth, analysis.matches, analysis.threshold)
        caption = f"{name}: detections with a score of at least {analysis.threshold:.2f}."
        add_matrix(page, counts, classes, caption)


def add_matrix(page: Page, counts: np.ndarray, classes: list[str], caption: str) -> None:
    """
    Args:
        counts: (K, K) by truth and prediction, or (K + 1, K + 1) with the background last.
    """
    with_background = len(counts) > len(classes)
    if len(classes) <= _MOST_CLASSES:
        objects = counts[: len(classes)]  # correct background is not counted
        total = objects.sum(axis=1, keepdims=True)
        shares = objects / np.where(total > 0, total, np.nan)
        columns = [*classes, MISSED] if with_background else classes
        labels = objects if objects.max(initial=0) < 10_000 else None
        page.figure(matrix(shares, classes, columns, labels), caption)
    rows = _pairs(counts, classes)
    if rows:
        page.table(rows, fold=f"Every confusion. {caption}", formats={_SHARE: ".1f"})


def _pairs(counts: np.ndarray, classes: list[str]) -> list[dict]:
    """The cells off the diagonal, the most frequent first."""
    places = [(i, j) for i, j in np.argwhere(counts) if i != j]
    places.sort(key=lambda place: -counts[place])
    total = counts.sum(axis=1)
    return [
        {
            "truth": [*classes, BACKGROUND][i],
            "predicted": [*classes, MISSED][j],
            "number": int(counts[i, j]),
            _SHARE: 100 * float(counts[i, j] / total[i]) if i < len(classes) else None,
        }
        for i, j in places[:_MOST_PAIRS]
    ]
