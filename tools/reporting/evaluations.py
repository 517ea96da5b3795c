"""What evaluations left in OUTPUT_DIR/inference: results of each class, and predictions."""

import json
from dataclasses import dataclass, field
from pathlib import Path

PREDICTIONS = {"detection": "coco_instances_results.json", "classification": "predictions.csv"}


@dataclass
class Evaluation:
    """The last evaluation of one data set.

    Attributes:
        about: what per_class.json says but the tables: json_file, image_root, iteration, classes.
        tasks: "bbox", "segm" or "classification" -> a row a class.
        predictions: the file of all predictions; None where there is none.
    """

    dataset: str
    about: dict = field(default_factory=dict)
    tasks: dict[str, list[dict]] = field(default_factory=dict)
    predictions: Path | None = None


def read_evaluations(folder: Path, task: str, named: tuple[str, ...]) -> tuple[list, list[str]]:
    """The evaluations in OUTPUT_DIR/inference, and notes on what cannot be read.

    Args:
        task: "detection" or "classification".
        named: DATASETS.TEST, for predictions that come without results of each class.
    """
    notes: list[str] = []
    found = [
        evaluation
        for file in sorted(folder.glob("*/per_class.json"))
        if (evaluation := _read_one(file, PREDICTIONS[task], notes))
    ]
    alone = folder / PREDICTIONS[task]
    if not found and alone.is_file():
        notes.append(
            "inference/ has predictions but no results of each class: they are of an earlier "
            "version or of another project."
        )
        found.append(Evaluation(dataset=named[0] if named else "", predictions=alone))
    for evaluation in found:
        if evaluation.predictions is None and len(found) == 1 and alone.is_file():
            evaluation.predictions = alone
    return found, notes


def _read_one(file: Path, predictions: str, notes: list[str]) -> Evaluation | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        tasks = {name: [dict(row) for row in rows] for name, rows in content.pop("tasks").items()}
        dataset = str(content["dataset"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        notes.append(f"{file} cannot be read and is left out ({type(error).__name__}: {error}).")
        return None
    own = file.parent / predictions
    return Evaluation(dataset, content, tasks, own if own.is_file() else None)
