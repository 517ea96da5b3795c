"""What a COCO evaluation leaves in OUTPUT_DIR/inference, and how a full disk does not end it."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence

from d2_isonet.checkpoint.files import write_checkpoint
from d2_isonet.utils.files import as_save_error, warned, write_text


@contextlib.contextmanager
def without(file: str) -> Iterator[None]:
    """An OSError of writing `file` is a warning."""
    with warned("The evaluation goes on without it"), as_save_error(file):
        yield


def save_predictions(folder: str, predictions: Sequence[dict]) -> None:
    """Write detectron2's instances_predictions.pth, or warn."""
    file = os.path.join(folder, "instances_predictions.pth")
    with without(file):
        os.makedirs(folder, exist_ok=True)
        write_checkpoint(file, predictions)


def save_results(folder: str, results: Sequence[dict]) -> None:
    """Write detectron2's coco_instances_results.json, or warn.

    Args:
        results: detections in COCO's format, with the category ids of the data set.
    """
    file = os.path.join(folder, "coco_instances_results.json")
    with without(file):
        write_text(file, json.dumps(results))


def in_folder_or_elsewhere(folder: str, make: Callable[[str], str]) -> str:
    """make(folder), a file that is needed; in the system's temporary folder where that is full."""
    with warned("It is written to the system's temporary folder instead"), as_save_error(folder):
        return make(folder)
    return make(tempfile.mkdtemp(prefix="d2_isonet_"))
