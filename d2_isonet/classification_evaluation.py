"""Top-1 and top-5 accuracy as a detectron2 evaluator."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from .classification_record import Prediction, predictions_of, write_predictions


class ImageNetEvaluator(DatasetEvaluator):
    """Top-1 and top-5 accuracy in percent over the images of all processes.

    With fewer than five classes, top-5 counts all of them and is 100.

    Args:
        num_classes: classes of the data set, which the network's logits must have.
        output_dir: where the predictions and the results of each class are written, see
            `write_predictions`; "" for nowhere.
        dataset_name, class_names: for these files; without names, classes are numbered.
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
        self._counts = torch.zeros(3, dtype=torch.int64)  # right at 1, right at 5, images

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count one batch: inputs with "label" and "file_name", outputs {"logits": (num_classes,)}.

        Raises:
            ValueError: the logits' length or a label does not fit the number of classes.
            FloatingPointError: a logit is NaN or infinite.
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
        if logits.shape != (len(inputs), self._num_classes):
            raise ValueError(
                f"{len(inputs)} images gave logits of shape {tuple(logits.shape)}, the data set "
                f"has {self._num_classes} classes; set MODEL.CLASSIFIER.NUM_CLASSES to "
                f"{self._num_classes} or use the data set that the weights were trained on"
            )
        if int(labels.max()) >= self._num_classes:
            worst = int(labels.argmax())
            raise ValueError(
                f"Label {int(labels[worst])} of {inputs[worst].get('file_name')} is not below the "
                f"number of classes, {self._num_classes}"
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

        Raises:
            ValueError: no image was evaluated.
        """
        gathered, predictions = comm.gather(self._counts), comm.gather(self._predictions)
        if not comm.is_main_process():
            return None
        right_at_1, right_at_5, images = torch.stack(gathered).sum(dim=0).tolist()
        if images == 0:
            raise ValueError("No image was evaluated; the evaluation data set is empty")
        if self._output_dir:
            every = [x for of_process in predictions for x in of_process]
            write_predictions(self._output_dir, self._dataset_name, every, self._class_names)
        return OrderedDict(
            classification={
                "top1": 100 * right_at_1 / images,
                "top5": 100 * right_at_5 / images,
                "num_images": images,
            }
        )
