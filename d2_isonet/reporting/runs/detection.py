"""Measures a detector's predictions: COCO's numbers, TIDE's errors, and matches with the truth."""

import contextlib
import io
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import Params

from d2_isonet.data.coco_json import read_annotations
from d2_isonet.evaluation.coco_measures import evaluated, params_of, summarized
from d2_isonet.evaluation.coco_truth import put_right
from d2_isonet.evaluation.per_class import detection_measures
from d2_isonet.utils.files import read_json
from d2_isonet.utils.messages import UserError

_MOST_BYTES = 1 << 32  # of detections
IOU = 0.5  # from which on a detection matches an object
BACKGROUND_IOU = 0.1  # a detection below it has nothing to do with the object
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")


@dataclass
class Matches:
    """Which detections are right and which objects are found, as COCO matches them at IoU 0.5."""

    detections: list[dict]  # those of the data set's categories, in COCO's form
    right: np.ndarray  # (D,) whether it matches an object; False if it does not count
    counts: np.ndarray  # (D,) False in a crowd, or beyond the largest number per image
    score_of_match: dict[int, float]  # annotation's place in the json -> score of its detection
    objects: list[int]  # places of all annotations that are not crowds

    def scores(self) -> np.ndarray:
        return np.array([d["score"] for d in self.detections])

    def shown(self, threshold: float) -> np.ndarray:
        """(D,) whether a detection counts and reaches the threshold."""
        return self.counts & (self.scores() >= threshold)

    def best_threshold(self) -> float:
        """The score threshold with the best F1 over all classes; 0.5 if nothing is right."""
        scores, right = self.scores()[self.counts], self.right[self.counts]
        if not right.any():
            return 0.5
        order = np.argsort(-scores, kind="stable")
        scores, hits = scores[order], np.cumsum(right[order])
        f1 = 2 * hits / (np.arange(1, len(hits) + 1) + len(self.objects))
        is_last_of_score = np.append(scores[1:] != scores[:-1], True)
        return float(scores[np.argmax(np.where(is_last_of_score, f1, -1))])


@dataclass
class Analysis:
    """The measurements of one task of one evaluation."""

    truth: COCO
    stats: dict[str, float | None]  # COCO's twelve numbers in percent; None if undefined
    rows: list[dict]  # one per class, see `detection_measures`
    precision: np.ndarray  # (T, R, K): IoU thresholds, recalls, classes; -1 if undefined
    recalls: np.ndarray  # (R,)
    errors: dict  # TIDE's: "counts" and "delta_ap" per kind
    matches: Matches  # at IoU 0.5
    threshold: float  # least score in matrix and pictures; at first the one with the best F1


def read_truth(json_file: Path) -> COCO:
    """The annotations as the evaluation reads them.

    Raises:
        FileNotFoundError, UserError: see `read_annotations`.
    """
    content = read_annotations(str(json_file))
    content.setdefault("annotations", [])
    truth = _indexed(content)
    put_right(truth, str(json_file))
    return truth


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
        content = read_json(file, _MOST_BYTES)
    except UserError:
        raise
    except ValueError as error:
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
    has_types = all(isinstance(x, int | float) for x in numbers)
    return has_types and len(numbers) == 5 and all(isinstance(x, int | str) for x in ids)


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
    matches = _matches(evaluation, known)
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
        matches.best_threshold(),
    )


def _matches(evaluation: Any, detections: list[dict]) -> Matches:
    """The matches in hotcoco's evaluation of these detections; see `evaluated`."""
    found = evaluation.image_diagnostics(iou_thr=IOU)
    status = found["dt_status"]  # of detections that count: "tp" or "fp"
    numbers = range(1, len(detections) + 1)
    return Matches(
        detections,
        np.array([status.get(n) == "tp" for n in numbers], dtype=bool),
        np.array([n in status for n in numbers], dtype=bool),
        {gt - 1: detections[dt - 1]["score"] for gt, dt in found["gt_match"].items()},
        [gt - 1 for gt in found["gt_status"]],
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
    }


def confusion(truth: COCO, matches: Matches, threshold: float, task: str = "bbox") -> np.ndarray:
    """(K + 1, K + 1) objects by true and predicted class, K classes in the order of their ids.

    Each detection of at least `threshold`, the highest score first, takes the object that it
    overlaps most, of any class, with an IoU of at least 0.5. The last column counts objects
    without a detection, the last row detections without an object. Crowds are skipped.
    """
    import hotcoco

    kept = [matches.detections[place] for place in np.flatnonzero(matches.shown(threshold))]
    params = params_of(truth, task, [1, 10, 100])
    if kept:
        evaluation = evaluated(hotcoco, truth, kept, task, params)
        return evaluation.confusion_matrix(iou_thr=IOU, max_det=len(kept))["matrix"].astype(int)
    matrix = np.zeros((len(params.catIds) + 1, len(params.catIds) + 1), int)
    for place in matches.objects:
        matrix[params.catIds.index(truth.dataset["annotations"][place]["category_id"]), -1] += 1
    return matrix


class ImageScore(NamedTuple):
    """Counts of one image at a score threshold."""

    image_id: int
    right: int
    wrong: int
    missed: int

    @property
    def f1(self) -> float:
        """F1 = 2 right / (2 right + wrong + missed)."""
        return 2 * self.right / (2 * self.right + self.wrong + self.missed)


def image_scores(truth: COCO, matches: Matches, threshold: float) -> list[ImageScore]:
    """From the best image to the worst; an image without objects and detections is skipped.

    The order is by F1, then more right ones, then fewer wrong or missed ones.
    """
    counts: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])  # right, wrong, missed
    for i in np.flatnonzero(matches.shown(threshold)):
        counts[matches.detections[i]["image_id"]][0 if matches.right[i] else 1] += 1
    for place in matches.objects:
        if matches.score_of_match.get(place, -np.inf) < threshold:
            counts[truth.dataset["annotations"][place]["image_id"]][2] += 1
    scores = [ImageScore(image_id, *numbers) for image_id, numbers in sorted(counts.items())]
    return sorted(scores, key=lambda x: (-x.f1, -x.right, x.wrong + x.missed))
