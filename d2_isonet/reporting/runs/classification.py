"""Sections on a classifier's results: classes, confusions, surest right and wrong images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from d2_isonet.data.image_folder import PILLOW_ERRORS, read_image
from d2_isonet.evaluation.classification import Prediction, read_predictions
from d2_isonet.reporting.page.page import Page, Picture

from .detection_sections import add_matrix, side_by_side
from .evaluations import Evaluation
from .run import Run

_SIDE = 320  # pixels


def add_classification(page: Page, runs: Sequence[Run], number: int) -> None:
    """A section per data set on which a run was evaluated."""
    names = list(dict.fromkeys(e.dataset for run in runs for e in run.evaluations))
    if not names:
        page.section("Results").note(
            "inference/ has no results per class: no evaluation has run, or an earlier version "
            "wrote them. metrics.json has top-1 and top-5."
        )
    for name in names:
        page.section(f"Results on {name}")
        own = {r.name: e for r in runs for e in r.evaluations if e.dataset == name}
        _add_classes(page, own)
        for run, evaluation in own.items():
            predictions = _predictions(page, run, evaluation)
            if predictions:
                classes = _classes(evaluation, predictions)
                _add_confusion(page, run, classes, predictions)
                _add_pictures(page, run, classes, predictions, number)


def _add_classes(page: Page, evaluations: dict[str, Evaluation]) -> None:
    page.subsection("Class by class", "Top-1 and top-5 in percent of the images of the class.")
    tables = {run: e.tasks.get("classification", []) for run, e in evaluations.items()}
    first = next(iter(tables))
    if len(tables) == 1:
        page.table(tables[first], formats=dict.fromkeys(("top1", "top5", "taken_for_share"), ".1f"))
        return
    rows = side_by_side(tables, "images", ("top1",))
    page.table(rows, formats={f"{run}: top1": ".1f" for run in tables})


def _predictions(page: Page, run: str, evaluation: Evaluation) -> list[Prediction]:
    if evaluation.predictions is None:
        page.note(f"{run}: there is no predictions.csv, so confusions and images are missing.")
        return []
    try:
        return read_predictions(evaluation.predictions)
    except (OSError, ValueError) as error:
        page.note(f"{run}: the predictions cannot be read: {error}.", "warning")
        return []


def _add_confusion(page: Page, run: str, classes: list[str], predictions: list[Prediction]) -> None:
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, ([p.label for p in predictions], [p.predicted for p in predictions]), 1)
    page.subsection("Confusion of classes")
    add_matrix(page, counts, classes, f"{run}: images by true and predicted class.")


def _classes(evaluation: Evaluation, predictions: list[Prediction]) -> list[str]:
    classes = [str(name) for name in evaluation.about.get("classes", [])]
    needed = max(max(p.label, p.predicted) for p in predictions) + 1
    return classes + [str(i) for i in range(len(classes), needed)]


def _add_pictures(
    page: Page, run: str, classes: list[str], predictions: list[Prediction], number: int
) -> None:
    surest = sorted(predictions, key=lambda p: (-p.probability, p.file_name))
    wrong = [p for p in surest if p.label != p.predicted][:number]
    right = [p for p in surest if p.label == p.predicted][:number]
    page.subsection(f"Best and worst images: {run}")
    missing: list[str] = []
    for title, chosen in (("Surest and wrong", wrong), ("Surest and right", right)):
        pictures = [_picture(p, classes, missing) for p in chosen]
        page.images([p for p in pictures if p], title if chosen else f"{title}: none", _SIDE)
    if missing:
        page.note(f"{len(missing)} images cannot be shown: {'; '.join(missing[:5])}.", "warning")


def _picture(prediction: Prediction, classes: list[str], missing: list[str]) -> Picture | None:
    try:
        image = read_image(prediction.file_name)
    except (*PILLOW_ERRORS, ValueError) as error:
        missing.append(str(error))
        return None
    caption = f"{classes[prediction.predicted]} {prediction.probability:.0%}"
    if prediction.label != prediction.predicted:
        caption += f", it is {classes[prediction.label]} ({prediction.probability_of_label:.0%})"
    return Picture(image, f"{caption}\n{Path(prediction.file_name).name}")
