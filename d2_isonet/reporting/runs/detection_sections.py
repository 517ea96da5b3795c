"""Sections on a detector's results: numbers, classes, curves, errors, sizes, confusion."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from d2_isonet.reporting.figures import add_legend, bars, colour, grid, matrix
from d2_isonet.reporting.page.page import Cell, Page, plain_text

from .datasets import DatasetResults
from .detection import STATS
from .matches import confusion

MISSED, BACKGROUND = "(missed)", "(background)"
_MOST_CLASSES = 40  # of a matrix; above it there is only the table
_MOST_PAIRS = 200
_MOST_CURVES = 12
_SHARE = "% of the class"
# COCO's letter -> name, least and largest area
_SIZES = {"s": ("small", 0, 32**2), "m": ("medium", 32**2, 96**2), "l": ("large", 96**2, 1e10)}
TITLES = {"bbox": "Boxes", "segm": "Masks"}


def add_confusion(page: Page, dataset: DatasetResults, thresholds: dict[str, float]) -> None:
    """Objects by true and predicted class; with many classes, the most frequent confusions.

    Args:
        thresholds: name of the run -> least score of a detection that counts.
    """
    page.subsection(
        "Confusion of classes",
        "Boxes, IoU 0.5. Each detection, the highest score first, takes the object that it "
        "overlaps most, of any class. Shades are shares of the objects of the row's class.",
    )
    for name, analysis in dataset.analyses("bbox").items():
        classes = [row["class"] for row in analysis.rows]
        counts = confusion(analysis.truth, analysis.matches, thresholds[name])
        caption = f"{name}: detections with a score of at least {thresholds[name]:.2f}."
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


KINDS = {
    "Cls": ("classification", "in place (IoU >= 0.5 with an object of another class), wrong class"),
    "Loc": ("localization", "right class, badly placed (IoU with such an object 0.1 to 0.5)"),
    "Both": ("both", "wrong class and badly placed (IoU 0.1 to 0.5 with one of another class)"),
    "Dupe": ("duplicate", "right, but the object already has a detection with a higher score"),
    "Bkg": ("background", "overlaps no object (IoU below 0.1 with all)"),
    "Miss": ("missed", "an object without a detection and without an error of the first two kinds"),
}


def error_rows(analyses: dict) -> list[dict]:
    """A row per kind: name, definition and, for each run, their number and their cost in AP."""
    rows = []
    for kind, (name, definition) in KINDS.items():
        row = {"error": name, "a detection that is": definition}
        for run, analysis in analyses.items():
            prefix = f"{run}: " if len(analyses) > 1 else ""
            row[f"{prefix}dAP"] = analysis.errors["delta_ap"][kind]
            row[f"{prefix}number"] = analysis.errors["counts"][kind]
        rows.append(row)
    return rows


def add_errors(page: Page, dataset: DatasetResults, names: Sequence[str]) -> None:
    page.subsection(
        "Kinds of error",
        "dAP: the AP50 gained if all errors of this kind were fixed (TIDE): the best detection of "
        "each free object is corrected and the others are removed; missed objects are not counted. "
        "All detections count, with any score. Gains do not add up.",
    )
    for task, title in TITLES.items():
        analyses = dataset.analyses(task)
        if not analyses:
            continue
        rows = error_rows(analyses)
        kinds = [row["error"] for row in rows]
        values = {
            name: [analysis.errors["delta_ap"][kind] for kind in KINDS]
            for name, analysis in analyses.items()
        }
        page.figure(bars(kinds, values, names, f"{title}: dAP (AP50, percent)"), f"{title}.")
        formats = {key: ".2f" for row in rows for key in row if key.endswith("dAP")}
        page.table(rows, formats=formats)


def delta(value: float | None, base: float | None) -> Cell:
    """The change from `base`, in colour."""
    if value is None or base is None:
        return Cell(None)
    change = value - base
    kind = "good" if change > 0.05 else "bad" if change < -0.05 else "muted"
    return Cell(change, f"{change:+.1f}", kind)


def add_numbers(page: Page, dataset: DatasetResults) -> None:
    """COCO's twelve numbers, a row per run and task."""
    rows = []
    for task, title in TITLES.items():
        for name, analysis in dataset.analyses(task).items():
            rows.append({"run": name, "of": title.lower(), **analysis.stats})
    if rows:
        caption = (
            "COCO's measures in percent. AP: mean over IoU 0.50 to 0.95; s, m, l: small, medium, "
            "large; AR: recall with 1, 10 or the largest number of detections per image."
        )
        page.table(rows, caption=caption, formats=dict.fromkeys(STATS, ".1f"))


def add_classes(page: Page, dataset: DatasetResults) -> None:
    """A table per task; with several runs, their AP side by side and its change."""
    page.subsection("Class by class")
    for task in dataset.tasks():
        by_run = dataset.rows(task)
        first = next(iter(by_run))
        if len(by_run) == 1:
            rows = [{k: v for k, v in row.items() if k != "category_id"} for row in by_run[first]]
        else:
            rows = side_by_side(by_run, "objects", ("AP", "AP50"))
        columns = [key for key in rows[0] if key.startswith(("AP", "AR")) or ": AP" in key]
        page.table(rows, caption=TITLES[task], formats=dict.fromkeys(columns, ".1f"))


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


def add_precision_recall(page: Page, dataset: DatasetResults, names: Sequence[str]) -> None:
    """Curves over all classes at IoU 0.5, 0.75 and on average; then class by class at 0.5."""
    page.subsection("Precision and recall")
    panels: dict[str, int | slice] = {
        "IoU 0.50": 0, "IoU 0.75": 5, "mean over IoU 0.50 to 0.95": slice(None),
    }  # fmt: skip
    for task, title in TITLES.items():
        analyses = dataset.analyses(task)
        if not analyses:
            continue
        figure, axes = grid(len(panels))
        for axis, (label, place) in zip(axes, panels.items(), strict=True):
            for name, x in analyses.items():
                _curve(axis, x.recalls, x.precision[place], colour(names.index(name)))
            axis.set_title(label, fontsize=10, loc="left")
        add_legend(figure, names)
        page.figure(figure, f"{title}: precision at each recall, mean over the classes.")
    _add_curves_of_classes(page, dataset, names)


def _curve(axis: Axes, recalls: np.ndarray, precision: np.ndarray, line_colour: str) -> None:
    """
    Args:
        precision: (..., R, K); the mean is over all axes but R, without -1.
    """
    places = tuple(i for i in range(precision.ndim) if i != precision.ndim - 2)
    mean = np.ma.masked_less(precision, 0).mean(axis=places)
    axis.plot(recalls, mean, color=line_colour, linewidth=1.4)
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
    axis.set_xlabel("recall", fontsize=8)
    axis.set_ylabel("precision", fontsize=8)


def _add_curves_of_classes(page: Page, dataset: DatasetResults, names: Sequence[str]) -> None:
    analyses = dataset.analyses("bbox")
    if not analyses:
        return
    rows = next(iter(analyses.values())).rows
    places = [k for k, row in enumerate(rows) if row["objects"]]
    places = sorted(places, key=lambda k: -rows[k]["objects"])[:_MOST_CURVES]
    if not places:
        return
    figure, axes = grid(len(places), panel=(2.9, 2.2), columns=4)
    for axis, k in zip(axes, places, strict=True):
        for name, x in analyses.items():
            _curve(axis, x.recalls, x.precision[:1, :, k : k + 1], colour(names.index(name)))
        axis.set_title(plain_text(rows[k]["class"])[:40], fontsize=9, loc="left")
    add_legend(figure, names)
    most = (
        f"the {_MOST_CURVES} classes with most objects" if len(rows) > len(places) else "each class"
    )
    page.figure(figure, f"Boxes, IoU 0.50: {most}.")


def add_sizes(page: Page, dataset: DatasetResults) -> None:
    """AP and AR of small, medium and large objects, and their number."""
    page.subsection(
        "By size of the object", "Small is below 32 x 32 pixels of area, large from 96 x 96."
    )
    rows = []
    for task, title in TITLES.items():
        for name, analysis in dataset.analyses(task).items():
            objects = [a for a in analysis.truth.dataset["annotations"] if not a["iscrowd"]]
            for letter, (size, least, largest) in _SIZES.items():
                # a border belongs to both sizes, as in COCO
                number = sum(least <= a["area"] <= largest for a in objects)
                measures = {m: analysis.stats[f"{m}{letter}"] for m in ("AP", "AR")}
                row = {"run": name, "of": title.lower(), "size": size, "objects": number}
                rows.append(row | measures)
    page.table(rows, formats={"AP": ".1f", "AR": ".1f"})
