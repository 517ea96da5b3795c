"""Composes the whole page: the summary at its top, then section by section."""

import statistics
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from d2_isonet import __version__
from d2_isonet.reporting.page.page import Cell, Page

from . import detection_sections as sections
from .classification import add_classification
from .datasets import DatasetResults, detection_results
from .pictures import add_pictures
from .provenance import add_config, add_provenance
from .run import Run, result_keys
from .training import add_results_in_time, add_training

# of the last evaluation
_RESULTS = {
    "bbox/AP": "box AP", "bbox/AP50": "box AP50", "bbox/AP75": "box AP75",
    "segm/AP": "mask AP", "segm/AP50": "mask AP50", "segm/AP75": "mask AP75",
    "classification/top1": "top-1 %", "classification/top5": "top-5 %",
}  # fmt: skip


def compose(
    runs: Sequence[Run],
    number: int,
    score_threshold: float | None,
    truth: Path | None,
    image_root: Path | None,
) -> Page:
    """The report of one run, or of several side by side.

    Args:
        number: of best images, and of worst images.
        score_threshold: of detections in matrix and pictures; None for the best F1.
        truth, image_root: used instead of those that the evaluations name.
    """
    title = f"Run {runs[0].name}" if len(runs) == 1 else f"{len(runs)} runs side by side"
    folders = ", ".join(str(run.folder) for run in runs)
    now = f"{datetime.now():%Y-%m-%d %H:%M}"
    page = Page(title, f"{folders}. Written {now} by d2-isonet report of d2_isonet {__version__}.")
    _add_summary(page, runs)
    for run in runs:
        for note in run.notes:
            page.note(f"{run.name}: {note}" if len(runs) > 1 else note, "warning")
    add_training(page, runs)
    add_results_in_time(page, runs)
    detectors = [run for run in runs if run.task == "detection"]
    classifiers = [run for run in runs if run.task == "classification"]
    if detectors:
        datasets = detection_results(detectors, truth, image_root)
        _add_detection(page, datasets, number, score_threshold)
    if classifiers:
        add_classification(page, classifiers, number)
    add_provenance(page, runs)
    add_config(page, runs)
    return page


def _add_summary(page: Page, runs: Sequence[Run]) -> None:
    """The main results as tiles or, of several runs, in a table with the change from the first."""
    results = {title: [run.metrics.last(key) for run in runs] for key, title in _main_keys(runs)}
    courses = [_course(run) for run in runs]
    if len(runs) == 1:
        tiles = {title: f"{x:.1f}" for title, (x,) in results.items() if x is not None}
        tiles |= {name: value for name, value in courses[0].items() if value is not None}
        page.section("Summary", "The last evaluation, and the state of the training.")
        page.numbers(tiles)
        return
    columns = ["quantity", runs[0].name]
    for run in runs[1:]:
        columns += [run.name, f"change, {run.name}"]
    rows: list[list] = []
    for title, values in results.items():
        cells = [Cell(x, "" if x is None else f"{x:.1f}") for x in values]
        changes = [sections.delta(value, values[0]) for value in values]
        rows.append([title, *_in_turn(cells, changes)])
    for name in courses[0]:
        rows.append([name, *_in_turn([x[name] for x in courses], [Cell(None, " ")] * len(runs))])
    page.section("Summary", f"Changes are relative to {runs[0].name}.")
    page.table(rows, columns)


def _in_turn(values: Sequence, changes: Sequence) -> list:
    """The first value without a change, then each value and its change."""
    pairs = zip(values[1:], changes[1:], strict=True)
    return [values[0], *(x for pair in pairs for x in pair)]


def _main_keys(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(key, title) of the main results of any run; the name of a data set, if any, is in both."""
    found = []
    for main, title in _RESULTS.items():
        for key in result_keys(runs):
            if key == main or key.endswith(f"/{main}"):
                dataset = key.removesuffix(main).strip("/")
                found.append((key, f"{title}, {dataset}" if dataset else title))
    return found


def _course(run: Run) -> dict[str, str | None]:
    """Progress, loss, penalty and speed of the training; None if not recorded."""
    steps, total = run.metrics.steps, run.config.get("SOLVER.MAX_ITER")
    iteration = f"{steps[-1]['iteration'] + 1} of {total or '?'}" if steps else None
    values: dict[str, str | None] = {"iterations": iteration}
    for name, key in (("loss", "total_loss"), ("excess penalty", "loss_ortho")):
        value = run.metrics.last(key)
        values[name] = None if value is None else f"{value:.4g}"
    seconds = run.metrics.series("time")[1]
    values["seconds per iteration"] = f"{statistics.median_high(seconds):.3g}" if seconds else None
    return values


def _add_detection(
    page: Page, datasets: Sequence[DatasetResults], number: int, score_threshold: float | None
) -> None:
    if not datasets:
        page.section("Results").note(
            "inference/ has no predictions: no evaluation has run yet, so classes, curves, errors "
            "and pictures are missing."
        )
    for dataset in datasets:
        page.section(f"Results on {dataset.name or 'a data set without a name'}")
        for note in dataset.notes:
            page.note(note, "warning")
        sections.add_numbers(page, dataset)
        sections.add_classes(page, dataset)
        if dataset.analyses["bbox"]:
            _add_measurements(page, dataset, number, score_threshold)


def _add_measurements(
    page: Page, dataset: DatasetResults, number: int, score_threshold: float | None
) -> None:
    sections.add_precision_recall(page, dataset)
    sections.add_errors(page, dataset)
    sections.add_sizes(page, dataset)
    analyses = dataset.analyses["bbox"]
    if score_threshold is None:
        each = ", ".join(f"{name} {analysis.threshold:.2f}" for name, analysis in analyses.items())
        text = (
            f"Matrix and pictures use {each}: the threshold with the best F1 over all classes at "
            "IoU 0.5. --score-threshold sets another one."
        )
    else:
        text = f"Matrix and pictures use {score_threshold:g}, from --score-threshold."
        for analysis in analyses.values():
            analysis.threshold = score_threshold
    page.subsection("Score threshold", text)
    sections.add_confusion(page, dataset)
    if number:
        add_pictures(page, dataset, number)
