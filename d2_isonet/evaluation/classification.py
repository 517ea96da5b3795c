"""Top-1 and top-5 accuracy as a detectron2 evaluator, and its file of predictions."""

import csv
import io
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from d2_isonet.utils.files import read_regular, tolerate, write_text
from d2_isonet.utils.messages import UserError

from .per_class import csv_text, current_iteration, folder_of, name_in, write_per_class

NAME = "predictions.csv"
_MOST_BYTES = 1 << 28  # the predictions of two million images


class Prediction(NamedTuple):
    """The prediction for one image; classes are numbers from 0, probabilities are softmax."""

    file_name: str
    label: int
    predicted: int
    probability: float  # of the predicted class
    probability_of_label: float
    in_top5: bool  # whether the label is among the five most likely classes


def predictions_of(
    inputs: Sequence[dict], logits: torch.Tensor, top: torch.Tensor
) -> list[Prediction]:
    """The predictions of a batch of dicts with "file_name" and "label".

    `logits` is (N, num_classes), `top` (N, up to 5): the most likely classes in descending order.
    """
    labels = torch.tensor([int(x["label"]) for x in inputs], device=top.device)
    two = torch.stack([top[:, 0], labels], dim=1)  # the recorded classes
    probabilities = logits.double().softmax(dim=1).gather(1, two)
    files = [str(x.get("file_name", "")) for x in inputs]
    rows = zip(files, labels.tolist(), top.tolist(), probabilities.tolist(), strict=True)
    return [
        Prediction(file, label, best[0], round(own, 6), round(of_label, 6), label in best)
        for file, label, best, (own, of_label) in rows
    ]


def write_predictions(
    output_dir: str, dataset_name: str, predictions: Sequence[Prediction], names: Sequence[str]
) -> None:
    """Write predictions.csv, per_class.csv and per_class.json into the folder of the data set.

    A full disk is a warning, not an error. `names` are those of the classes, by their numbers.
    """
    folder, iteration = folder_of(output_dir, dataset_name), current_iteration()
    about: dict = {"dataset": dataset_name, "classes": list(names)}
    about |= {"images": len(predictions), "iteration": iteration}
    write_per_class(folder, {"classification": class_measures(predictions, names)}, about)
    with tolerate(folder / NAME, "The evaluation continues without it"):
        rows = ({**p._asdict(), "in_top5": int(p.in_top5)} for p in predictions)
        write_text(folder / NAME, csv_text(Prediction._fields, rows))


def class_measures(predictions: Sequence[Prediction], names: Sequence[str]) -> list[dict]:
    """One row per class: top-1 and top-5 in percent (None without images), number of images and of
    predictions, and the most frequent wrong class with its share of the images in percent."""
    predicted = Counter(p.predicted for p in predictions)
    of_class = defaultdict(list)
    for p in predictions:
        of_class[p.label].append(p)
    rows = []
    for number, name in enumerate(names):
        own = of_class[number]
        wrong = Counter(p.predicted for p in own if p.predicted != number)
        other, times = next(iter(wrong.most_common(1)), (None, 0))
        counts = (len(own) - wrong.total(), sum(p.in_top5 for p in own), times)
        top1, top5, share = (100 * n / len(own) if own else None for n in counts)
        rows.append({
            "class": name, "top1": top1, "top5": top5, "images": len(own),
            "predicted": predicted[number], "taken_for": None if other is None else names[other],
            "taken_for_share": share,
        })  # fmt: skip
    return rows


def read_predictions(file: Path) -> list[Prediction]:
    """The predictions in a file of `write_predictions`.

    Raises UserError if the file has other columns or is damaged.
    """
    text = read_regular(file, _MOST_BYTES).decode("utf-8", errors="replace")
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise UserError(f"{file} is damaged: {error}") from error
    if not rows or tuple(rows[0]) != Prediction._fields:
        raise UserError(f"{file} does not have the columns {', '.join(Prediction._fields)}")
    kinds: tuple[Callable, ...] = (name_in, int, int, float, float, lambda x: bool(int(x)))
    try:
        return [
            Prediction(*(kind(x) for kind, x in zip(kinds, row, strict=True))) for row in rows[1:]
        ]
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}") from error


class ImageNetEvaluator(DatasetEvaluator):
    """Top-1 and top-5 accuracy in percent over the images of all processes.

    With fewer than five classes, top-5 is 100.

    Args:
        num_classes: of the data set and of the network's logits.
        output_dir: for the files of `write_predictions`; "" writes none.
        dataset_name, class_names: for these files; the default names are the classes' numbers.
    """

    def __init__(
        self,
        num_classes: int,
        output_dir: str = "",
        dataset_name: str = "",
        class_names: Sequence[str] = (),
    ):
        self._num_classes = num_classes
        self._output_dir = output_dir
        self._dataset_name = dataset_name
        self._class_names = list(class_names) or [str(i) for i in range(num_classes)]
        self.reset()

    def reset(self) -> None:
        self._predictions: list[Prediction] = []
        self._counts = torch.zeros(3, dtype=torch.int64)  # top-1 hits, top-5 hits, images

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count one batch: inputs with "label" and "file_name", outputs {"logits": (num_classes,)}.

        Raises UserError if the number of logits or a label does not match the number of classes,
        and FloatingPointError if a logit is NaN or infinite.
        """
        logits = torch.stack([x["logits"] for x in outputs])
        labels = torch.tensor([x["label"] for x in inputs], device=logits.device)
        self._check(inputs, logits, labels)
        top = logits.topk(min(5, self._num_classes), dim=1).indices
        right = top == labels[:, None]
        self._counts += torch.tensor([int(right[:, 0].sum()), int(right.sum()), len(inputs)])
        if self._output_dir:
            self._predictions += predictions_of(inputs, logits, top)

    def _check(self, inputs: list[dict], logits: torch.Tensor, labels: torch.Tensor) -> None:
        number = self._num_classes
        if logits.shape != (len(inputs), number):
            raise UserError(
                f"{len(inputs)} images gave logits of shape {tuple(logits.shape)}, the data set "
                f"has {number} classes",
                f"set MODEL.CLASSIFIER.NUM_CLASSES to {number} or use the data set that the "
                "weights were trained on",
            )
        if int(labels.max()) >= number:
            worst = inputs[int(labels.argmax())]
            raise UserError(
                f"Label {int(labels.max())} of {worst.get('file_name')} is not below the number "
                f"of classes, {number}"
            )
        finite = torch.isfinite(logits).all(dim=1)
        if not bool(finite.all()):
            first = int((~finite).int().argmax())
            raise FloatingPointError(
                f"{int((~finite).sum())} of {len(inputs)} images have NaN or infinite logits, the "
                f"first is {inputs[first].get('file_name')}; the weights have diverged or were not "
                "loaded"
            )

    def evaluate(self) -> OrderedDict | None:
        """{"classification": {"top1", "top5" (percent), "num_images"}} on the main process.

        Raises UserError if no image was evaluated.
        """
        gathered, predictions = comm.gather(self._counts), comm.gather(self._predictions)
        if not comm.is_main_process():
            return None
        right_at_1, right_at_5, images = sum(gathered).tolist()
        if images == 0:
            raise UserError("No image was evaluated", "the evaluation data set is empty")
        if self._output_dir:
            every = list(chain.from_iterable(predictions))
            write_predictions(self._output_dir, self._dataset_name, every, self._class_names)
        top1, top5 = 100 * right_at_1 / images, 100 * right_at_5 / images
        return OrderedDict(classification={"top1": top1, "top5": top5, "num_images": images})
