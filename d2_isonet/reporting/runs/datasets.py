"""Measures the evaluations of all runs, grouped by data set."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from d2_isonet.evaluation.coco_measures import import_hotcoco

from .detection import Analysis, analyse, read_detections, read_truth, tasks_of
from .run import Evaluation, Run, evaluations_by_dataset


@dataclass
class DatasetResults:
    """The evaluations of several runs on one data set."""

    name: str
    evaluations: dict[str, Evaluation]  # by the name of the run
    names: list[str]  # of all runs in the report; the place of a name is its colour
    truth: COCO | None = None  # None if the annotations cannot be read
    image_root: Path | None = None
    # "bbox" and "segm" -> name of the run -> its measured predictions
    analyses: dict[str, dict[str, Analysis]] = field(
        default_factory=lambda: {"bbox": {}, "segm": {}}
    )
    notes: list[str] = field(default_factory=list)  # what is missing, in sentences

    def rows(self, task: str) -> dict[str, list[dict]]:
        """Name of the run -> a row per class: measured now if possible, else as recorded."""
        recorded = {run: e.tasks[task] for run, e in self.evaluations.items() if task in e.tasks}
        measured = {run: analysis.rows for run, analysis in self.analyses[task].items()}
        rows = recorded | measured
        return {run: rows[run] for run in self.evaluations if run in rows}


def detection_results(
    runs: Sequence[Run], truth_file: Path | None = None, image_root: Path | None = None
) -> list[DatasetResults]:
    """The measured predictions of the runs, one entry per data set.

    Args:
        truth_file, image_root: used instead of those that the evaluations name.
    """
    names = [run.name for run in runs]
    datasets = [DatasetResults(*x, names) for x in evaluations_by_dataset(runs).items()]
    for dataset in datasets:
        _read_truth(dataset, truth_file, image_root)
        for run, evaluation in dataset.evaluations.items():
            _measure(dataset, run, evaluation)
        dataset.notes = list(dict.fromkeys(dataset.notes))
    return datasets


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
    values = {evaluation.about.get(key) for evaluation in dataset.evaluations.values()}
    return sorted(filter(None, values))


def _measure(dataset: DatasetResults, run: str, evaluation: Evaluation) -> None:
    """Fill in the analyses of a run, or note why that is impossible."""
    file, hotcoco = evaluation.predictions, import_hotcoco()
    if file is None:
        dataset.notes.append(
            f"{run}: there are no predictions, so only the recorded results are shown."
        )
    if hotcoco is None:
        dataset.notes.append("hotcoco is not installed: no curves, errors and pictures.")
    if file is None or hotcoco is None or dataset.truth is None:
        return
    try:
        detections = read_detections(file)
        if not detections:
            dataset.notes.append(f"{run}: the model detects nothing.")
            return
        most = evaluation.about.get("max_detections", 100)
        for task in tasks_of(detections):
            dataset.analyses[task][run] = analyse(dataset.truth, detections, task, most)
    except (OSError, ValueError, KeyError) as error:
        dataset.notes.append(f"{run}: the predictions cannot be measured: {error}.")
        return
    for task in tasks_of(detections):
        rows, measured = evaluation.tasks.get(task, []), dataset.analyses[task][run].rows
        then, now = (np.array([x.get("AP") for x in y], float) for y in (rows, measured))
        is_same = then.shape == now.shape and np.allclose(then, now, 0, 1e-6, equal_nan=True)
        if rows and not is_same:
            dataset.notes.append(
                f"{run}: the {task} AP of a class is not what the evaluation recorded: the "
                "annotations or the predictions have changed since."
            )
