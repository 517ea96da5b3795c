"""Results of an evaluation per class, written as csv for people and json for programs."""

import contextlib
import csv
import io
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.utils.events import get_event_storage

from d2_isonet.utils.files import tolerate, write_text
from d2_isonet.utils.messages import printable

NAME = "per_class"  # stem of both file names


logger = logging.getLogger(__name__)
_weights: ContextVar[str] = ContextVar("weights", default="")


@contextlib.contextmanager
def evaluated_weights(name: str) -> Iterator[None]:
    """Log which weights are evaluated inside, and name them in per_class.json."""
    logger.info(f"Evaluating {name}")
    token = _weights.set(name)
    try:
        yield
    finally:
        _weights.reset(token)


def folder_of(output_dir: str | os.PathLike, dataset_name: str) -> Path:
    """The folder in `output_dir` for the files of one data set, whose name may be a path."""
    return Path(output_dir, re.sub(r"[^\w.-]+", "_", dataset_name).strip("._") or "_")


def detection_measures(evaluation: Any, classes: Mapping[int, tuple[str, int]]) -> list[dict]:
    """COCO's measures of each class in percent, as pycocotools accumulates them.

    A measure is None if there is no object for it. AP is the mean over IoU 0.50 to 0.95, AR the
    mean recall with the largest number of detections per image. s, m and l are COCO's small (area
    below 32 x 32 pixels), medium and large (from 96 x 96).

    Args:
        evaluation: an accumulated COCOeval, of hotcoco by `coco_measures` or of pycocotools.
        classes: category id -> (name, number of detections), in the order of the evaluation.
    """
    params, truth = evaluation.params, evaluation.cocoGt
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    sizes, labels = {"s": "small", "m": "medium", "l": "large"}, list(params.areaRngLbl)
    areas = {k: labels.index(v) for k, v in sizes.items() if v in labels}
    annotations, image_ids = truth.dataset.get("annotations", []), set(params.imgIds)
    objects = Counter(
        (x["category_id"], bool(x.get("iscrowd")))
        for x in annotations
        if x["image_id"] in image_ids
    )
    rows = []
    for k, (category_id, (name, detections)) in enumerate(classes.items()):
        row = {"class": name, "category_id": category_id, "AP": _percent(precision[:, :, k, 0, -1])}
        for threshold in (50, 75):
            at = np.isclose(params.iouThrs, threshold / 100)
            row[f"AP{threshold}"] = _percent(precision[at][:, :, k, 0, -1])
        row |= {f"AP{s}": _percent(precision[:, :, k, a, -1]) for s, a in areas.items()}
        row["AR"] = _percent(recall[:, k, 0, -1])
        row |= {f"AR{s}": _percent(recall[:, k, a, -1]) for s, a in areas.items()}
        row["objects"], row["crowds"] = objects[category_id, False], objects[category_id, True]
        rows.append({**row, "detections": detections})
    return rows


def _percent(values: np.ndarray) -> float | None:
    values = values[values > -1]  # -1: undefined
    return 100 * float(values.mean()) if values.size else None


def write_per_class(
    folder: str | os.PathLike, rows: Mapping[str, Sequence[Mapping]], about: Mapping
) -> None:
    """Write per_class.csv and per_class.json; a full disk is a warning, not an error.

    `rows` has a row per class for each task ("bbox", "segm", "classification"), `about` further
    entries of the json: the data set, its files, the iteration; `evaluated_weights` adds its name.
    """
    folder = Path(folder)
    content = {
        **about,
        "weights": _weights.get(),
        "tasks": {task: list(table) for task, table in rows.items()},
    }
    with tolerate(folder, "The evaluation continues without the results of each class"):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{NAME}.json", json.dumps(content, indent=1) + "\n")
        flat = [{"task": task, **row} for task, table in rows.items() for row in table]
        columns = list(dict.fromkeys(key for row in flat for key in row))
        write_text(folder / f"{NAME}.csv", csv_text(columns, flat))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping]) -> str:
    """A table as csv with a line of column names; None is an empty field.

    Text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _field(value) for key, value in row.items()} for row in rows)
    return file.getvalue()


_FORMULA = re.compile(r"'*([=+\-@\uff1d\uff0b\uff0d\uff20]|\\[tr])")  # and full-width signs, tabs


def _field(value: Any) -> Any:
    if not isinstance(value, str) or re.fullmatch(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", value):
        return value
    text = printable(value)
    return f"'{text}" if _FORMULA.match(text) else text


def name_in(field: str) -> str:
    """The text that `csv_text` has written as `field`; what it escaped stays escaped."""
    return field[1:] if field.startswith("'") and _FORMULA.match(field) else field


def current_iteration() -> int | None:
    """The current iteration of the training; None outside of a training."""
    try:
        return get_event_storage().iter
    except AssertionError:
        return None
