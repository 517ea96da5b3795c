"""Measures the evaluations of all runs, grouped by data set."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from d2_isonet.evaluation.coco_measures import import_hotcoco

from .detection import Analysis, analyse, read_detections, read_truth, tasks_of
from .evaluations import Evaluation
from .run import Run


@dataclass
class Result:
    """A run's evaluation of the data set.

    Attributes:
        analyses: "bbox" and, with masks, "segm"; empty if the predictions cannot be measured.
    """

    run: Run
    evaluation: Evaluation
    analyses: dict[str, Analysis] = field(default_factory=dict)


@dataclass
class DatasetResults:
    """
    Attributes:
        truth: None if the annotations cannot be read.
        notes: what is missing, in sentences.
    """

    name: str
    results: list[Result]
    truth: COCO | None = None
    image_root: Path | None = None
    notes: list[str] = field(default_factory=list)

    def analyses(self, task: str) -> dict[str, Analysis]:
        """Name of the run -> its analysis, for runs that have the task."""
        return {r.run.name: r.analyses[task] for r in self.results if task in r.analyses}

    def rows(self, task: str) -> dict[str, list[dict]]:
        """Name of the run -> a row per class: measured now if possible, else as recorded."""
        rows = {}
        for result in self.results:
            if task in result.analyses:
                rows[result.run.name] = result.analyses[task].rows
            elif task in result.evaluation.tasks:
                rows[result.run.name] = result.evaluation.tasks[task]
        return rows

    def tasks(self) -> list[str]:
        return [task for task in ("bbox", "segm") if self.rows(task)]


def detection_results(
    runs: Sequence[Run], truth_file: Path | None = None, image_root: Path | None = None
) -> list[DatasetResults]:
    """The measured predictions of the runs, one entry per data set.

    Args:
        truth_file, image_root: used instead of those that the evaluations name.
    """
    by_name: dict[str, DatasetResults] = {}
    for run in runs:
        for evaluation in run.evaluations:
            own = by_name.setdefault(evaluation.dataset, DatasetResults(evaluation.dataset, []))
            own.results.append(Result(run, evaluation))
    for dataset in by_name.values():
        _read_truth(dataset, truth_file, image_root)
        for result in dataset.results:
            _measure(dataset, result)
        dataset.notes = list(dict.fromkeys(dataset.notes))
    return list(by_name.values())


def _read_truth(dataset: DatasetResults, file: Path | None, image_root: Path | None) -> None:
    files, roots = _recorded(dataset, "json_file"), _recorded(dataset, "image_root")
    dataset.image_root = image_root or (Path(roots[0]) if roots else None)
    if file is None and len(files) > 1:
        dataset.notes.append(
            f"The runs were evaluated on different files with the name {dataset.name}: "
            f"{', '.join(files)}. This report takes the first as the truth."
        )
    if file is None and not files:
        dataset.notes.append(
            "The file of the true annotations is unknown: add --annotations FILE and --images DIR "
            "for curves, errors and pictures."
        )
        return
    try:
        dataset.truth = read_truth(file or Path(files[0]))
    except (OSError, ValueError) as error:
        dataset.notes.append(
            f"The truth cannot be read, so curves, errors and pictures are missing: {error}. If "
            "the file has moved, add --annotations FILE and --images DIR."
        )


def _recorded(dataset: DatasetResults, key: str) -> list[str]:
    """The different values that the evaluations recorded, sorted."""
    values = (result.evaluation.about.get(key) for result in dataset.results)
    return sorted({value for value in values if value})


def _measure(dataset: DatasetResults, result: Result) -> None:
    """Fill in the analyses of a result, or note why that is impossible."""
    name, file = result.run.name, result.evaluation.predictions
    if file is None:
        dataset.notes.append(
            f"{name}: there are no predictions, so only the recorded results are shown."
        )
    if import_hotcoco() is None:
        dataset.notes.append("hotcoco is not installed: no curves, errors and pictures.")
    if file is None or import_hotcoco() is None or dataset.truth is None:
        return
    try:
        detections = read_detections(file)
        if not detections:
            dataset.notes.append(f"{name}: the model detects nothing.")
            return
        most = result.evaluation.about.get("max_detections", 100)
        for task in tasks_of(detections):
            result.analyses[task] = analyse(dataset.truth, detections, task, most)
    except (OSError, ValueError, KeyError) as error:
        dataset.notes.append(f"{name}: the predictions cannot be measured: {error}.")
        return
    _compare_with_record(dataset, result)


def _compare_with_record(dataset: DatasetResults, result: Result) -> None:
    """Note if the numbers are not those of the evaluation: files have changed since."""
    for task, analysis in result.analyses.items():
        rows = result.evaluation.tasks.get(task, [])
        then, now = (np.array([x.get("AP") for x in y], float) for y in (rows, analysis.rows))
        is_same = then.shape == now.shape and np.allclose(then, now, 0, 1e-6, equal_nan=True)
        if rows and not is_same:
            dataset.notes.append(
                f"{result.run.name}: the {task} AP of a class is not what the evaluation "
                "recorded: the annotations or the predictions have changed since."
            )
