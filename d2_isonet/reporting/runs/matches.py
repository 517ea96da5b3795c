"""Matches of detections and objects: counts by class, by image, and of the whole data set."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO

from d2_isonet.evaluation.coco_measures import evaluated, params_of

IOU = 0.5  # from which on a detection matches an object


@dataclass
class Matches:
    """Which detections are right and which objects are found, as COCO matches them at IoU 0.5.

    Attributes:
        detections: those of the data set's categories, in COCO's form.
        right: (D,) whether the detection matches an object; False if it does not count.
        counts: (D,) False in a crowd, or beyond the largest number of detections per image.
        score_of_match: annotation's place in the json -> score of the detection that found it.
        objects: places of all annotations that are not crowds.
    """

    detections: list[dict]
    right: np.ndarray
    counts: np.ndarray
    score_of_match: dict[int, float]
    objects: list[int]

    def scores(self) -> np.ndarray:
        return np.array([d["score"] for d in self.detections])

    def shown(self, threshold: float) -> np.ndarray:
        """(D,) whether a detection counts and reaches the threshold."""
        return self.counts & (self.scores() >= threshold)

    def best_threshold(self) -> float:
        """The score threshold with the best F1 over all classes; 0.5 if nothing is right."""
        scores, right = self.scores()[self.counts], self.right[self.counts]
        if not scores.size or not right.any():
            return 0.5
        order = np.argsort(-scores, kind="stable")
        scores, hits = scores[order], np.cumsum(right[order])
        f1 = 2 * hits / (np.arange(1, len(hits) + 1) + len(self.objects))
        is_last_of_score = np.append(scores[1:] != scores[:-1], True)
        return float(scores[np.argmax(np.where(is_last_of_score, f1, -1))])


def matches_of(evaluation: Any, detections: list[dict]) -> Matches:
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


def confusion(truth: COCO, matches: Matches, threshold: float, task: str = "bbox") -> np.ndarray:
    """(K + 1, K + 1) objects by true and predicted class, K classes in the order of their ids.

    Each detection of at least `threshold`, the highest score first, takes the object that it
    overlaps most, of any class, with an IoU of at least 0.5. The last column counts objects
    without a detection, the last row detections without an object. Crowds are skipped.
    """
    import hotcoco

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
    images = [(d["image_id"], ok) for d, ok in zip(matches.detections, matches.right, strict=True)]
    shown = [images[place] for place in np.flatnonzero(matches.shown(threshold))]
    right = Counter(image for image, is_right in shown if is_right)
    wrong = Counter(image for image, is_right in shown if not is_right)
    missed = Counter(
        truth.dataset["annotations"][place]["image_id"]
        for place in matches.objects
        if matches.score_of_match.get(place, -np.inf) < threshold
    )
    scores = [
        ImageScore(i, right[i], wrong[i], missed[i])
        for i in sorted(right.keys() | wrong.keys() | missed.keys())
    ]
    return sorted(scores, key=lambda x: (-x.f1, -x.right, x.wrong + x.missed))
