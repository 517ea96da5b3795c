"""Reads what evaluations wrote into OUTPUT_DIR/inference: results per class, and predictions."""

import json
from dataclasses import dataclass, field
from pathlib import Path

_ABOUT = {"json_file": str, "image_root": str, "max_detections": int, "classes": list}
_NAMES = ("class", "taken_for")
PREDICTIONS = {"detection": "coco_instances_results.json", "classification": "predictions.csv"}


@dataclass
class Evaluation:
    """The last evaluation of one data set.

    Attributes:
        about: of per_class.json: json_file, image_root, max_detections; or classes.
        tasks: "bbox", "segm" or "classification" -> a row per class.
        predictions: the file of all predictions; None if there is none.
    """

    dataset: str
    about: dict = field(default_factory=dict)
    tasks: dict[str, list[dict]] = field(default_factory=dict)
    predictions: Path | None = None


def read_evaluations(folder: Path, task: str, named: tuple[str, ...]) -> tuple[list, list[str]]:
    """The evaluations in OUTPUT_DIR/inference, and notes on files that cannot be read.

    Args:
        task: "detection" or "classification".
        named: DATASETS.TEST, for predictions that come without results per class.
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
            "inference/ has predictions but no results per class: an earlier version or another "
            "project wrote them."
        )
        found.append(Evaluation(dataset=named[0] if named else "", predictions=alone))
    for evaluation in found:
        if evaluation.predictions is None and len(found) == 1 and alone.is_file():
            evaluation.predictions = alone
    return found, notes


def _read_one(file: Path, predictions: str, notes: list[str]) -> Evaluation | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        tasks = {name: [_row(row) for row in rows] for name, rows in content.pop("tasks").items()}
        dataset = str(content["dataset"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        notes.append(f"{file} cannot be read and is skipped ({type(error).__name__}: {error}).")
        return None
    own = file.parent / predictions
    about = {key: content[key] for key, kind in _ABOUT.items() if type(content.get(key)) is kind}
    return Evaluation(dataset, about, tasks, own if own.is_file() else None)


def _row(row: dict) -> dict:
    """Names as text, and all other values as numbers or None."""
    numbers = {k: v if isinstance(v, int | float) else None for k, v in row.items()}
    names = {k: str(row[k]) for k in _NAMES if row.get(k) is not None}
    return {"class": str(row["class"]), **numbers, **names}
