"""A detector's predictions measured against the truth: COCO's numbers, TIDE's errors, matches."""

import contextlib
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import Params

from d2_isonet.data.coco_json import fill_in, read_annotations
from d2_isonet.evaluation.coco_measures import evaluated, params_of, summarized
from d2_isonet.evaluation.per_class import detection_measures
from d2_isonet.utils.messages import UserError

from .matches import IOU, Matches, matches_of

BACKGROUND_IOU = 0.1  # below it a detection has nothing to do with an object
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")


@dataclass
class Analysis:
    """One task of one evaluation.

    Attributes:
        task: "bbox" or "segm".
        stats: COCO's twelve numbers in percent; None where undefined.
        rows: a row a class, see `detection_measures`.
        precision: (T, R, K) at IoU thresholds (T,), recalls (R,), classes; -1 undefined.
        errors: of TIDE, see `error_rows` in errors.py; dAP in percent.
        matches: at IoU 0.5.
    """

    task: str
    stats: dict[str, float | None]
    rows: list[dict]
    precision: np.ndarray
    ious: np.ndarray
    recalls: np.ndarray
    errors: dict
    matches: Matches


def read_truth(json_file: Path) -> COCO:
    """The annotations as the evaluation takes them.

    Raises:
        FileNotFoundError, UserError: what `read_annotations` raises.
    """
    truth = COCO()
    truth.dataset = read_annotations(str(json_file))
    for annotation in truth.dataset.setdefault("annotations", []):
        fill_in(annotation)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def read_detections(file: Path) -> list[dict]:
    """Detections in COCO's form.

    Raises:
        UserError: the file is damaged (an evaluation may be writing it), or of another form.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{file} is damaged ({error}): it is being written, or its run was killed"
        ) from error
    if not isinstance(content, list) or not all(map(_is_detection, content)):
        raise UserError(
            f"{file} is no list of detections, each with image_id, category_id, score and bbox"
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
    """ "bbox", and "segm" where every detection has a mask."""
    has_masks = bool(detections) and all("segmentation" in d for d in detections)
    return ["bbox", "segm"] if has_masks else ["bbox"]


def analyse(
    hotcoco: ModuleType, truth: COCO, detections: list[dict], task: str, max_dets: int = 100
) -> Analysis:
    """Everything the report shows of one task.

    Args:
        detections: at least one; those of categories that the truth has not are left out.
        max_dets: the most detections an image and class.

    Raises:
        UserError: a detection is of an image that the truth does not have, or its score is NaN.
    """
    known = [d for d in detections if d["category_id"] in truth.cats]
    params = params_of(truth, task, [1, 10, max_dets])
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = evaluated(hotcoco, truth, known, task, params)
        summary = summarized(evaluation, truth, task, params)
    matches = matches_of(evaluation, known)
    numbers = Counter(d["category_id"] for d in known)
    classes = {i: (truth.cats[i]["name"], numbers[i]) for i in params.catIds}
    stats = {
        k: None if x < 0 else 100 * float(x) for k, x in zip(STATS, summary.stats, strict=True)
    }
    return Analysis(
        task,
        stats,
        detection_measures(summary, classes),
        summary.eval["precision"][:, :, :, 0, -1],
        np.asarray(params.iouThrs),
        np.asarray(params.recThrs),
        _errors(hotcoco, truth, matches, task, params),
        matches,
    )


def _errors(hotcoco: ModuleType, truth: COCO, matches: Matches, task: str, params: Params) -> dict:
    """TIDE's, without crowds and what lies in them: hotcoco would take a detection beside a crowd
    for badly placed, where TIDE calls it background."""
    objects = COCO()
    annotations = [truth.dataset["annotations"][place] for place in matches.objects]
    objects.dataset = {**truth.dataset, "annotations": annotations}
    counting = [matches.detections[place] for place in np.flatnonzero(matches.counts)]
    with contextlib.redirect_stdout(io.StringIO()):
        objects.createIndex()
    evaluation = evaluated(hotcoco, objects, counting, task, params)
    found = evaluation.tide_errors(pos_thr=IOU, bg_thr=BACKGROUND_IOU)
    return {
        "counts": {k: int(v) for k, v in found["counts"].items()},
        "delta_ap": {k: 100 * v for k, v in found["delta_ap"].items()},
        "ap": 100 * found["ap_base"],
    }
