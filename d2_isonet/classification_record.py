"""What a classifier said of each image, and how well it knows each class: two files."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from d2_isonet.utils.files import warned, write_text

from .per_class import current_iteration, folder_of, write_per_class

NAME = "predictions.csv"


class Prediction(NamedTuple):
    """One image: classes are numbers from 0, probabilities the softmax of its logits."""

    file_name: str
    label: int
    predicted: int
    probability: float  # of the predicted class
    probability_of_label: float
    in_top5: bool  # whether the label is among the five first


def predictions_of(
    inputs: Sequence[dict], logits: torch.Tensor, top: torch.Tensor
) -> list[Prediction]:
    """The predictions of one batch.

    Args:
        inputs: dicts with "file_name" and "label".
        logits: (N, num_classes).
        top: (N, up to 5), classes from the likeliest on.
    """
    labels = torch.tensor([int(x["label"]) for x in inputs], device=top.device)
    two = torch.stack([top[:, 0], labels], dim=1)  # of a thousand classes no more are recorded
    probabilities = logits.double().softmax(dim=1).gather(1, two)
    return [
        Prediction(
            str(x.get("file_name", "")), label, best[0], round(p[0], 6), round(p[1], 6),
            label in best,
        )
        for x, label, p, best in zip(
            inputs, labels.tolist(), probabilities.tolist(), top.tolist(), strict=True
        )
    ]  # fmt: skip


def write_predictions(
    output_dir: str, dataset_name: str, predictions: Sequence[Prediction], names: Sequence[str]
) -> None:
    """Write predictions.csv, per_class.csv and per_class.json into the data set's folder.

    A full disk is a warning, not an error.

    Args:
        names: of the classes, in the order of their numbers.
    """
    folder = folder_of(output_dir, dataset_name)
    about = {
        "dataset": dataset_name,
        "classes": list(names),
        "images": len(predictions),
        "iteration": current_iteration(),
    }
    write_per_class(folder, {"classification": class_measures(predictions, names)}, about)
    with warned("The predictions are not written"):
        write_text(folder / NAME, _csv(predictions))


def class_measures(predictions: Sequence[Prediction], names: Sequence[str]) -> list[dict]:
    """A row a class: top-1 and top-5 in percent (None without an image), images, predictions, and
    the class it is taken for most often, with the share of its images in percent."""
    rows = []
    predicted = Counter(p.predicted for p in predictions)
    images = Counter(p.label for p in predictions)
    right = Counter(p.label for p in predictions if p.predicted == p.label)
    in_top5 = Counter(p.label for p in predictions if p.in_top5)
    confused: dict[int, Counter] = {}
    for p in predictions:
        if p.predicted != p.label:
            confused.setdefault(p.label, Counter())[p.predicted] += 1
    for number, name in enumerate(names):
        n = images[number]
        other, times = next(iter(confused.get(number, Counter()).most_common(1)), (None, 0))
        rows.append({
            "class": name,
            "top1": 100 * right[number] / n if n else None,
            "top5": 100 * in_top5[number] / n if n else None,
            "images": n,
            "predicted": predicted[number],
            "taken_for": None if other is None else names[other],
            "taken_for_share": 100 * times / n if n else None,
        })  # fmt: skip
    return rows


def _csv(predictions: Sequence[Prediction]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Prediction._fields)
    writer.writerows([*p[:-1], int(p.in_top5)] for p in predictions)
    return file.getvalue()


def read_predictions(file: Path) -> list[Prediction]:
    """The predictions that `write_predictions` has written.

    Raises:
        ValueError: the file is of another form, or cut off.
    """
    with open(file, newline="", encoding="utf-8") as opened:
        rows = list(csv.reader(opened))
    if not rows or tuple(rows[0]) != Prediction._fields:
        raise ValueError(f"{file} has not the columns {', '.join(Prediction._fields)}")
    kinds: tuple[Callable, ...] = (str, int, int, float, float, lambda x: bool(int(x)))
    try:
        return [
            Prediction(*(kind(x) for kind, x in zip(kinds, row, strict=True))) for row in rows[1:]
        ]
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
