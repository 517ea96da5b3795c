"""Which classes are taken for which: a picture where they are few, and a table."""

import numpy as np
from pages.page import Page

from d2_isonet.evaluation.coco_measures import import_hotcoco

from .datasets import DatasetResults
from .figures import matrix
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
