"""Measures a detector's predictions: COCO's numbers, TIDE's errors, and matches with the truth."""

import contextlib
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import Params

from d2_isonet.data.coco_json import fill_in, read_annotations
from d2_isonet.evaluation.coco_measures import evaluated, params_of, summarized
from d2_isonet.evaluation.per_class import detection_measures
from d2_isonet.utils.messages import UserError

from .matches import IOU, Matches, matches_of

BACKGROUND_IOU = 0.1  # a detection below it has nothing to do with the object
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")


@dataclass
class Analysis:
    """The measurements of one task of one evaluation.

    Attributes:
        stats: COCO's twelve numbers in percent; None if undefined.
        rows: one per class, see `detection_measures`.
        precision: (T, R, K) at IoU thresholds (T,), recalls (R,), and classes; -1 if undefined.
        errors: TIDE's: "counts" and "delta_ap" per kind, "ap" in percent.
        matches: at IoU 0.5.
    """

    truth: COCO
    stats: dict[str, float | None]
    rows: list[dict]
    precision: np.ndarray
    recalls: np.ndarray
    errors: dict
    matches: Matches


def read_truth(json_file: Path) -> COCO:
    """The annotations as the evaluation reads them.

    Raises:
        FileNotFoundError, UserError: see `read_annotations`.
    """
    content = read_annotations(str(json_file))
    for annotation in content.setdefault("annotations", []):
        fill_in(annotation)
    return _indexed(content)


def _indexed(content: dict) -> COCO:
    truth = COCO()
    truth.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def read_detections(file: Path) -> list[dict]:
    """Detections in COCO's form.

    Raises:
        UserError: the file is damaged (an evaluation may be writing it), or has another form.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{file} is damaged ({error}): it is being written, or its run was killed"
        ) from error
    if not isinstance(content, list) or not all(map(_is_detection, content)):
        raise UserError(
            f"{file} is not a list of detections, each with image_id, category_id, score and bbox"
        )
    return content


def _is_detection(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("bbox"), list):
        return False
    numbers = [value.get("score"), *value["bbox"]]
    ids = [value.get("image_id"), value.get("category_id")]
    return (
        len(numbers) == 5
        and all(isinstance(x, int | float) for x in numbers)
        and all(isinstance(x, int | str) for x in ids)
    )


def tasks_of(detections: list[dict]) -> list[str]:
    """ "bbox", and "segm" if every detection has a mask."""
    has_masks = bool(detections) and all("segmentation" in d for d in detections)
    return ["bbox", "segm"] if has_masks else ["bbox"]


def analyse(truth: COCO, detections: list[dict], task: str, max_dets: int = 100) -> Analysis:
    """All measurements that the report shows of a task; hotcoco must be installed.

    Args:
        detections: at least one; categories that the truth does not have are skipped.
        task: "bbox" or "segm".
        max_dets: the largest number of detections per image and class.

    Raises:
        UserError: a detection is of an image that the truth does not have, or its score is NaN.
    """
    import hotcoco

    known = [d for d in detections if d["category_id"] in truth.cats]
    params = params_of(truth, task, [1, 10, max_dets])
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = evaluated(hotcoco, truth, known, task, params)
        summary = summarized(evaluation, truth, task, params)
    matches = matches_of(evaluation, known)
    numbers = Counter(d["category_id"] for d in known)
    classes = {i: (truth.cats[i]["name"], numbers[i]) for i in params.catIds}
    stats = zip(STATS, summary.stats, strict=True)
    return Analysis(
        truth,
        {name: None if value < 0 else 100 * float(value) for name, value in stats},
        detection_measures(summary, classes),
        summary.eval["precision"][:, :, :, 0, -1],
        np.asarray(params.recThrs),
        _errors(truth, matches, task, params),
        matches,
    )


def _errors(truth: COCO, matches: Matches, task: str, params: Params) -> dict:
    """TIDE's errors, without crowds and the detections in them.

    hotcoco would count a detection beside a crowd as badly placed, TIDE counts it as background.
    """
    import hotcoco

    annotations = [truth.dataset["annotations"][place] for place in matches.objects]
    objects = _indexed({**truth.dataset, "annotations": annotations})
    counting = [matches.detections[place] for place in np.flatnonzero(matches.counts)]
    evaluation = evaluated(hotcoco, objects, counting, task, params)
    found = evaluation.tide_errors(pos_thr=IOU, bg_thr=BACKGROUND_IOU)
    return {
        "counts": {k: int(v) for k, v in found["counts"].items()},
        "delta_ap": {k: 100 * v for k, v in found["delta_ap"].items()},
        "ap": 100 * found["ap_base"],
    }
