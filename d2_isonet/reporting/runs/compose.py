"""Composes the whole page, section by section."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from d2_isonet import __version__
from d2_isonet.reporting.page.page import Page

from .classification import add_classification
from .datasets import DatasetResults, detection_results
from .detection_sections import (
    add_classes,
    add_confusion,
    add_errors,
    add_numbers,
    add_precision_recall,
    add_sizes,
)
from .pictures import add_pictures
from .provenance import add_config, add_provenance
from .run import Run
from .summary import add_summary
from .training import add_results_in_time, add_training


@dataclass(frozen=True)
class Options:
    """
    Attributes:
        images: number of best images and of worst images.
        score_threshold: of detections in matrix and pictures; None for the best F1.
        truth, image_root: used instead of those that the evaluations name.
    """

    images: int = 6
    score_threshold: float | None = None
    truth: Path | None = None
    image_root: Path | None = None


def compose(runs: Sequence[Run], options: Options) -> Page:
    """The report of one run, or of several side by side."""
    title = f"Run {runs[0].name}" if len(runs) == 1 else f"{len(runs)} runs side by side"
    folders = ", ".join(str(run.folder) for run in runs)
    now = f"{datetime.now():%Y-%m-%d %H:%M}"
    page = Page(title, f"{folders}. Written {now} by d2-isonet report of d2_isonet {__version__}.")
    add_summary(page, runs)
    add_training(page, runs)
    add_results_in_time(page, runs)
    detectors = [run for run in runs if run.task == "detection"]
    classifiers = [run for run in runs if run.task == "classification"]
    if detectors:
        _add_detection(page, detectors, options)
    if classifiers:
        add_classification(page, classifiers, options.images)
    add_provenance(page, runs)
    add_config(page, runs)
    return page


def _add_detection(page: Page, runs: Sequence[Run], options: Options) -> None:
    datasets = detection_results(runs, options.truth, options.image_root)
    if not datasets:
        page.section("Results").note(
            "inference/ has no predictions: no evaluation has run yet, so classes, curves, errors "
            "and pictures are missing."
        )
    for dataset in datasets:
        page.section(f"Results on {dataset.name or 'a data set without a name'}")
        for note in dataset.notes:
            page.note(note, "warning")
        _add_dataset(page, dataset, [run.name for run in runs], options)


def _add_dataset(
    page: Page, dataset: DatasetResults, names: Sequence[str], options: Options
) -> None:
    add_numbers(page, dataset)
    if dataset.tasks():
        add_classes(page, dataset)
    if not dataset.analyses("bbox"):
        return
    thresholds = {
        name: analysis.matches.best_threshold()
        if options.score_threshold is None
        else options.score_threshold
        for name, analysis in dataset.analyses("bbox").items()
    }
    add_precision_recall(page, dataset, names)
    add_errors(page, dataset, names)
    add_sizes(page, dataset)
    page.subsection("Score threshold", _about_thresholds(thresholds, options))
    add_confusion(page, dataset, thresholds)
    if options.images:
        add_pictures(page, dataset, thresholds, options.images)


def _about_thresholds(thresholds: dict[str, float], options: Options) -> str:
    if options.score_threshold is not None:
        return f"Matrix and pictures use {options.score_threshold:g}, from --score-threshold."
    each = ", ".join(f"{name} {value:.2f}" for name, value in thresholds.items())
    return (
        f"Matrix and pictures use {each}: the threshold with the best F1 over all classes at IoU "
        "0.5. --score-threshold sets another one."
    )
