"""Sections on a detector's results: numbers, classes, curves, sizes, matrix."""

from collections.abc import Sequence

import numpy as np

from d2_isonet.evaluation.coco_measures import import_hotcoco
from d2_isonet.reporting.figures import add_legend, bars, colour, grid, matrix
from d2_isonet.reporting.page.page import Page, plain_text
from d2_isonet.reporting.page.tables import Cell

from .datasets import DatasetResults
from .detection import STATS
from .matches import confusion

MISSED, BACKGROUND = "(missed)", "(background)"
_MOST_CLASSES = 40  # that a matrix shows; of more, only the table is there
_MOST_PAIRS = 200
_SHARE = "% of the class"


def add_confusion(page: Page, dataset: DatasetResults, thresholds: dict[str, float]) -> None:
    """Objects by true and predicted class; of many classes, the pairs that are confused most.

    Args:
        thresholds: name of the run -> least score of a detection that counts.
    """
    analyses = dataset.analyses("bbox")
    page.subsection(
        "Confusion of classes",
        "Boxes, IoU 0.5. Each detection, the highest score first, takes the object that it "
        "overlaps most, whatever the class. Shades are shares of the row: of that class's objects.",
    )
    for name, analysis in analyses.items():
        classes = [row["class"] for row in analysis.rows]
        counts = confusion(import_hotcoco(), dataset.truth, analysis.matches, thresholds[name])
        caption = f"{name}: detections with a score from {thresholds[name]:.2f} on."
        add_matrix(page, counts, classes, caption)


def add_matrix(page: Page, counts: np.ndarray, classes: list[str], caption: str) -> None:
    """Args: counts: (K, K) by truth and prediction, or (K + 1, K + 1) with the background last."""
    with_background = len(counts) > len(classes)
    if len(classes) <= _MOST_CLASSES:
        objects = counts[: len(classes)]  # how often background is right is not counted
        total = objects.sum(axis=1, keepdims=True)
        shares = objects / np.where(total > 0, total, np.nan)
        columns = [*classes, MISSED] if with_background else classes
        labels = objects if objects.max(initial=0) < 10_000 else None
        page.figure(matrix(shares, classes, columns, labels), caption)
    rows = _pairs(counts, classes)
    if rows:
        page.table(rows, fold=f"Every confusion. {caption}", formats={_SHARE: ".1f"})


def _pairs(counts: np.ndarray, classes: list[str]) -> list[dict]:
    """The cells off the diagonal, from the most frequent on."""
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
    "Miss": ("missed", "an object without a detection, nor a Cls or Loc error that is its own"),
}
TITLES = {"bbox": "Boxes", "segm": "Masks"}


def error_rows(analyses: dict) -> list[dict]:
    """A row a kind: name, definition and, for each run, how many and how much AP they cost."""
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
        "Of each kind, by how much AP50 would rise if it alone were mended (dAP): the best "
        "detection of each free object set right, the others taken away; for missed objects, if "
        "they did not count. All detections count, whatever their score. The dAP do not add up.",
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


_SIZES = {"s": "small (below 32 x 32 pixels)", "m": "medium", "l": "large (from 96 x 96)"}
_MOST_CURVES = 12


def delta(value: float | None, base: float | None) -> Cell:
    """The change against the first run, in colour."""
    if value is None or base is None:
        return Cell(None)
    change = value - base
    kind = "good" if change > 0.05 else "bad" if change < -0.05 else "muted"
    return Cell(change, f"{change:+.1f}", kind)


def add_numbers(page: Page, dataset: DatasetResults) -> None:
    """COCO's twelve numbers, a row a run and task."""
    rows = []
    for task, title in TITLES.items():
        for name, analysis in dataset.analyses(task).items():
            rows.append({"run": name, "of": title.lower(), **analysis.stats})
    if rows:
        caption = (
            "COCO's measures in percent. AP: mean over IoU 0.50 to 0.95; s, m, l: small, medium, "
            "large; AR: recall with 1, 10 or the most detections an image."
        )
        page.table(rows, caption=caption, formats=dict.fromkeys(STATS, ".1f"))


def add_classes(page: Page, dataset: DatasetResults) -> None:
    """A table a task; with several runs, AP side by side and its change."""
    page.subsection("Class by class")
    for task in dataset.tasks():
        by_run = dataset.rows(task)
        first = next(iter(by_run))
        if len(by_run) == 1:
            rows = [{k: v for k, v in row.items() if k != "category_id"} for row in by_run[first]]
        else:
            rows = _side_by_side(by_run)
        columns = [key for key in rows[0] if key.startswith(("AP", "AR")) or ": AP" in key]
        page.table(rows, caption=TITLES[task], formats=dict.fromkeys(columns, ".1f"))


def _side_by_side(by_run: dict[str, list[dict]]) -> list[dict]:
    names = list(by_run)
    base = {row["class"]: row for row in by_run[names[0]]}
    others = {name: {row["class"]: row for row in by_run[name]} for name in names}
    rows = []
    for name_of_class, first in base.items():
        row = {"class": name_of_class, "objects": first.get("objects")}
        for name in names:
            own = others[name].get(name_of_class, {})
            row[f"{name}: AP"], row[f"{name}: AP50"] = own.get("AP"), own.get("AP50")
            if name != names[0]:
                row[f"{name}: change"] = delta(own.get("AP"), first.get("AP"))
        rows.append(row)
    return rows


def add_precision_recall(page: Page, dataset: DatasetResults, names: Sequence[str]) -> None:
    """Over all classes at IoU 0.5, 0.75 and their mean; then class by class at 0.5."""
    page.subsection("Precision and recall")
    for task, title in TITLES.items():
        analyses = dataset.analyses(task)
        if not analyses:
            continue
        panels = {"IoU 0.50": 0, "IoU 0.75": 5, "mean over IoU 0.50 to 0.95": slice(None)}
        figure, axes = grid(len(panels))
        for axis, (label, place) in zip(axes, panels.items(), strict=True):
            for name, x in analyses.items():
                _curve(axis, x.recalls, x.precision[place], colour(names.index(name)))
            axis.set_title(label, fontsize=10, loc="left")
        add_legend(figure, names)
        page.figure(figure, f"{title}: precision at each recall, mean over the classes.")
    _add_curves_of_classes(page, dataset, names)


def _curve(axis, recalls: np.ndarray, precision: np.ndarray, line_colour: str) -> None:
    """Args: precision: (..., R, K) or (R,); -1 is left out of the mean."""
    places = tuple(i for i in range(precision.ndim) if i != max(0, precision.ndim - 2))
    defined = np.ma.masked_less(precision, 0)
    mean = defined.mean(axis=places) if precision.ndim > 1 else defined
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
            _curve(axis, x.recalls, x.precision[0, :, k], colour(names.index(name)))
        axis.set_title(plain_text(rows[k]["class"])[:40], fontsize=9, loc="left")
    add_legend(figure, names)
    most = (
        f"the {_MOST_CURVES} classes with most objects" if len(rows) > len(places) else "each class"
    )
    page.figure(figure, f"Boxes, IoU 0.50: {most}.")


def add_sizes(page: Page, dataset: DatasetResults) -> None:
    """AP and AR of small, medium and large objects, and how many there are."""
    page.subsection(
        "By size of the object", "Small is below 32 x 32 pixels of area, large from 96 x 96."
    )
    truth, rows = dataset.truth, []
    for task, title in TITLES.items():
        for name, analysis in dataset.analyses(task).items():
            for letter, size in _SIZES.items():
                stats = analysis.stats
                row = {"run": name, "of": title.lower(), "size": Cell(size, size.split(" (")[0])}
                row |= {"objects": _objects(truth, letter), "AP": stats[f"AP{letter}"]}
                rows.append({**row, "AR": stats[f"AR{letter}"]})
    page.table(rows, formats={"AP": ".1f", "AR": ".1f"})


def _objects(truth, letter: str) -> int:
    low, high = {"s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}[letter]
    areas = [a["area"] for a in truth.dataset["annotations"] if not a["iscrowd"]]
    return sum(low <= area <= high for area in areas)  # a border belongs to both, as in COCO
