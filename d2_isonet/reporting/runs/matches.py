"""Which detections are right and which objects are found: of a class, of an image, of the set."""

from collections import Counter
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO

from d2_isonet.evaluation.coco_measures import evaluated, params_of

IOU = 0.5  # of a match in the matrix, the errors and the pictures


@dataclass
class Matches:
    """Which detections are right and which objects are found, as COCO matches them at IoU 0.5.

    Attributes:
        detections: of the data set's categories, COCO form.
        right: (D,) whether it has an object; False where it counts for nothing, too.
        counts: (D,) False for one in a crowd, or beyond the most detections of an image.
        score_of_match: annotation's place in the json -> score of the detection that found it.
        objects: places of all annotations that are no crowds.
    """

    detections: list[dict]
    right: np.ndarray
    counts: np.ndarray
    score_of_match: dict[int, float]
    objects: list[int]

    def scores(self) -> np.ndarray:
        return np.array([d["score"] for d in self.detections])

    def shown(self, threshold: float) -> np.ndarray:
        """(D,) whether a detection counts and its score is not below the threshold."""
        return self.counts & (self.scores() >= threshold)

    def best_threshold(self) -> float:
        """The score from which on detections have the best F1 (over all classes together)."""
        scores, right = self.scores()[self.counts], self.right[self.counts]
        if not scores.size or not right.any():
            return 0.5
        order = np.argsort(-scores, kind="stable")
        scores, hits = scores[order], np.cumsum(right[order])
        f1 = 2 * hits / (np.arange(1, len(hits) + 1) + len(self.objects))
        is_last_of_score = np.append(scores[1:] != scores[:-1], True)
        return float(scores[np.argmax(np.where(is_last_of_score, f1, -1))])


def matches_of(evaluation: Any, detections: list[dict]) -> Matches:
    """The matches in an evaluation of hotcoco by `evaluated` of these detections."""
    found = evaluation.image_diagnostics(iou_thr=IOU)
    status = found["dt_status"]  # of those that count: "tp" or "fp"
    numbers = range(1, len(detections) + 1)
    return Matches(
        detections,
        np.array([status.get(n) == "tp" for n in numbers], dtype=bool),
        np.array([n in status for n in numbers], dtype=bool),
        {gt - 1: detections[dt - 1]["score"] for gt, dt in found["gt_match"].items()},
        [gt - 1 for gt in found["gt_status"]],
    )


def confusion(
    hotcoco: ModuleType, truth: COCO, matches: Matches, threshold: float, task: str = "bbox"
) -> np.ndarray:
    """(K + 1, K + 1) objects by true and predicted class, K classes in the order of their ids.

    Detections of at least `threshold`, the highest score first, take the object of whatever class
    that they overlap most, IoU 0.5 at least. The last column is of objects without a detection,
    the last row of detections without an object. Detections in crowds are left out.
    """
    kept = [matches.detections[place] for place in np.flatnonzero(matches.shown(threshold))]
    params = params_of(truth, task, [1, 10, 100])
    if not kept:
        number = len(params.catIds)
        matrix = np.zeros((number + 1, number + 1), int)
        for place in matches.objects:
            category = truth.dataset["annotations"][place]["category_id"]
            matrix[params.catIds.index(category), number] += 1
        return matrix
    evaluation = evaluated(hotcoco, truth, kept, task, params)
    return evaluation.confusion_matrix(iou_thr=IOU, max_det=len(kept))["matrix"].astype(int)


class ImageScore(NamedTuple):
    """Counts of one image, at a threshold of the score."""

    image_id: int
    right: int
    wrong: int
    missed: int

    @property
    def f1(self) -> float:
        """2 right / (2 right + wrong + missed)."""
        return 2 * self.right / (2 * self.right + self.wrong + self.missed)


def image_scores(truth: COCO, matches: Matches, threshold: float) -> list[ImageScore]:
    """From the best image to the worst; images with neither object nor detection are left out.

    By F1; of equal ones, that with more right is better, and with more wrong or missed is worse.
    """
    right, wrong, missed = Counter(), Counter(), Counter()
    shown = matches.shown(threshold)
    for place in np.flatnonzero(shown):
        own = right if matches.right[place] else wrong
        own[matches.detections[place]["image_id"]] += 1
    for place in matches.objects:
        if matches.score_of_match.get(place, -np.inf) < threshold:
            missed[truth.dataset["annotations"][place]["image_id"]] += 1
    scores = [
        ImageScore(i, right[i], wrong[i], missed[i])
        for i in sorted(right.keys() | wrong.keys() | missed.keys())
    ]
    return sorted(scores, key=lambda x: (-x.f1, -x.right, x.wrong + x.missed))
