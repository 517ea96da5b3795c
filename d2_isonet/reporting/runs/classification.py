"""Sections on a classifier's results: classes, confusions, surest right and wrong images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from d2_isonet.data.image_file import UnreadableImage, read_image
from d2_isonet.evaluation.classification import Prediction, read_predictions
from d2_isonet.reporting.page.page import Page, Picture

from .detection_sections import add_matrix, side_by_side
from .run import Evaluation, Run, evaluations_by_dataset

_SIDE = 320  # pixels


def add_classification(page: Page, runs: Sequence[Run], number: int) -> None:
    """A section per data set on which a run was evaluated."""
    datasets = evaluations_by_dataset(runs)
    if not datasets:
        page.section("Results").note(
            "inference/ has no results per class: no evaluation has run, or an earlier version "
            "wrote them. metrics.json has top-1 and top-5."
        )
    for name, evaluations in datasets.items():
        page.section(f"Results on {name}")
        _add_classes(page, evaluations)
        for run, evaluation in evaluations.items():
            predictions = _predictions(page, run, evaluation)
            if predictions:
                _add_predictions(page, run, evaluation, predictions, number)


def _add_classes(page: Page, evaluations: dict[str, Evaluation]) -> None:
    page.subsection("Class by class", "Top-1 and top-5 in percent of the images of the class.")
    tables = {run: e.tasks.get("classification", []) for run, e in evaluations.items()}
    if len(tables) == 1:
        (rows,) = tables.values()
        page.table(rows, formats=dict.fromkeys(("top1", "top5", "taken_for_share"), ".1f"))
    else:
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


def _add_predictions(
    page: Page, run: str, evaluation: Evaluation, predictions: list[Prediction], number: int
) -> None:
    """The confusion of classes, and the surest `number` wrong and right images."""
    classes = [str(name) for name in evaluation.about.get("classes", [])]
    needed = max(max(p.label, p.predicted) for p in predictions) + 1
    classes += map(str, range(len(classes), needed))
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, ([p.label for p in predictions], [p.predicted for p in predictions]), 1)
    page.subsection("Confusion of classes")
    add_matrix(page, counts, classes, f"{run}: images by true and predicted class.")
    page.subsection(f"Best and worst images: {run}")
    surest = sorted(predictions, key=lambda p: (-p.probability, p.file_name))
    missing: list[str] = []
    for title, is_right in (("Surest and wrong", False), ("Surest and right", True)):
        chosen = [p for p in surest if (p.label == p.predicted) == is_right][:number]
        pictures = [_picture(p, classes, missing) for p in chosen]
        page.images([p for p in pictures if p], title if chosen else f"{title}: none", _SIDE)
    if missing:
        page.note(f"{len(missing)} images cannot be shown: {'; '.join(missing[:5])}.", "warning")


def _picture(prediction: Prediction, classes: list[str], missing: list[str]) -> Picture | None:
    try:
        image = read_image(prediction.file_name)
    except (UnreadableImage, FileNotFoundError) as error:
        missing.append(str(error))
        return None
    caption = f"{classes[prediction.predicted]} {prediction.probability:.0%}"
    if prediction.label != prediction.predicted:
        caption += f", it is {classes[prediction.label]} ({prediction.probability_of_label:.0%})"
    return Picture(image, f"{caption}\n{Path(prediction.file_name).name}")
