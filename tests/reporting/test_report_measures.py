"""The measures of the report against hand-computed cases, pycocotools and brute force."""

import json

import numpy as np
import pytest
from benchmarks.coco_evaluation import random_detections, random_truth
from brute_detection import brute_confusion, brute_errors
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2_isonet.reporting.runs.detection import (
    STATS,
    analyse,
    confusion,
    image_scores,
    read_detections,
    read_truth,
    tasks_of,
)

A, B = 5, 9  # category ids


def truth_of(tmp_path, objects: list[tuple]) -> COCO:
    """Objects are (image, category, [x, y, w, h]) and, of a crowd, True."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 100, "width": 100} for i in (1, 2)],
        "categories": [{"id": A, "name": "a"}, {"id": B, "name": "b"}],
        "annotations": [
            {"id": 7 * n, "image_id": image, "category_id": category, "bbox": box,
             "iscrowd": int(bool(crowd))}
            for n, (image, category, box, *crowd) in enumerate(objects, 1)
        ],
    }  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return read_truth(tmp_path / "truth.json")


def detection(image: int, category: int, box: list, score: float) -> dict:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


OBJECTS = [(1, A, [0, 0, 10, 10]), (1, B, [20, 20, 10, 10]), (1, A, [50, 50, 10, 10]),
           (2, B, [50, 50, 10, 10]), (2, A, [0, 0, 30, 30], True)]  # fmt: skip
DETECTIONS = [
    detection(1, A, [0, 0, 10, 10], 0.9),  # right
    detection(1, A, [0, 0, 10, 9], 0.8),  # a duplicate
    detection(1, A, [20, 20, 10, 10], 0.7),  # of b: the class is wrong
    detection(1, A, [55, 50, 10, 10], 0.6),  # IoU 1/3: the place is wrong
    detection(2, A, [55, 50, 10, 10], 0.5),  # of b and IoU 1/3: both are wrong
    detection(2, B, [80, 80, 10, 10], 0.4),  # background
    detection(2, A, [5, 5, 10, 10], 0.95),  # in a crowd: counts for nothing
]


def test_one_detection_of_each_kind_is_reported_as_such(tmp_path):
    analysis = analyse(truth_of(tmp_path, OBJECTS), DETECTIONS, "bbox")
    kinds = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
    assert analysis.errors["counts"] == dict.fromkeys(kinds, 1)
    assert analysis.matches.right.tolist() == [True] + 6 * [False]
    assert analysis.matches.counts.tolist() == 6 * [True] + [False]
    assert analysis.matches.score_of_match == {0: 0.9}


def test_the_matrix_counts_objects_by_true_and_predicted_class(tmp_path):
    truth = truth_of(tmp_path, OBJECTS)
    matches = analyse(truth, DETECTIONS, "bbox").matches
    expected = [[1, 0, 1], [1, 0, 1], [3, 1, 0]]
    np.testing.assert_array_equal(confusion(truth, matches, 0.0), expected)
    expected = [[1, 0, 1], [0, 0, 2], [1, 0, 0]]
    np.testing.assert_array_equal(confusion(truth, matches, 0.8), expected)
    expected = [[0, 0, 2], [0, 0, 2], [0, 0, 0]]
    np.testing.assert_array_equal(confusion(truth, matches, 0.99), expected)


def test_images_are_ranked_by_what_is_right_wrong_and_missed(tmp_path):
    truth = truth_of(tmp_path, OBJECTS)
    matches = analyse(truth, DETECTIONS, "bbox").matches
    assert image_scores(truth, matches, 0.75) == [(1, 1, 1, 2), (2, 0, 0, 1)]
    assert image_scores(truth, matches, 0.75)[0].f1 == pytest.approx(2 / 5)
    assert matches.best_threshold() == 0.9  # 1 of 1 right, of 4 objects: F1 0.4


@pytest.mark.parametrize(
    "objects, detections",
    [([], [detection(1, A, [0, 0, 9, 9], 0.9)]), (OBJECTS, DETECTIONS[-1:]),
     (OBJECTS[-1:], DETECTIONS), (OBJECTS[:1], [detection(1, B, [0, 0, 10, 10], 0.5)])],
    ids=["no object", "all in a crowd", "only a crowd", "no object of a class"],
)  # fmt: skip
def test_little_to_measure_is_measured(objects, detections, tmp_path):
    truth = truth_of(tmp_path, objects)
    analysis = analyse(truth, detections, "bbox")
    crowded = sum(d in DETECTIONS[-1:] for d in detections) if objects else 0
    counts = analysis.errors["counts"]
    assert sum(counts.values()) - counts["Miss"] == len(detections) - crowded
    matrix = confusion(truth, analysis.matches, 0.0)
    assert matrix[:-1].sum() == sum(len(x) == 3 for x in objects)
    assert len(image_scores(truth, analysis.matches, 0.0)) <= 2
    assert analysis.matches.best_threshold() == 0.5


def brute_f1(matches, threshold: float) -> float:
    shown = matches.counts & (matches.scores() >= threshold)
    return 2 * (shown & matches.right).sum() / (shown.sum() + len(matches.objects))


@pytest.fixture(scope="module", params=["bbox", "segm"])
def random_case(request, tmp_path_factory):
    """Task, truth, detections and their analysis: 12 images with crowds, scores that tie."""
    content = random_truth(12, [3, 90, 7], seed=4, size=(120, 160))
    file = tmp_path_factory.mktemp("truth") / "truth.json"
    file.write_text(json.dumps(content))
    found = [x for p in random_detections(content, 12, masks=True) for x in p["instances"]]
    for wrong in found[::4]:
        wrong["category_id"] = 93 - wrong["category_id"] if wrong["category_id"] != 7 else 7
    truth = read_truth(file)
    return request.param, truth, found, analyse(truth, found, request.param)


def by_pycocotools(task, truth, found) -> COCOeval:
    region = {"bbox": "segmentation", "segm": "bbox"}[task]  # the other one, which gives the area
    found = [{k: v for k, v in x.items() if k != region} for x in found]
    evaluation = COCOeval(truth, truth.loadRes(found), task)
    for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
        step()
    return evaluation


def test_numbers_and_curves_are_pycocotools(random_case):
    task, truth, found, analysis = random_case
    expected = by_pycocotools(task, truth, found)
    ours = [-1 if analysis.stats[key] is None else analysis.stats[key] / 100 for key in STATS]
    np.testing.assert_allclose(ours, expected.stats, atol=1e-12)
    np.testing.assert_array_equal(analysis.precision, expected.eval["precision"][..., 0, -1])
    assert analysis.stats["AP"] > 1


def test_right_and_ignored_detections_are_pycocotools(random_case):
    task, truth, found, analysis = random_case
    images = [x for x in by_pycocotools(task, truth, found).evalImgs if x]
    images = [x for x in images if x["aRng"] == [0, 1e10] and x["maxDet"] == 100]
    matched = {
        i
        for x in images
        for i, m, g in zip(x["dtIds"], x["dtMatches"][0], x["dtIgnore"][0], strict=True)
        if m and not g
    }
    ignored = {i for x in images for i, g in zip(x["dtIds"], x["dtIgnore"][0], strict=True) if g}
    assert {i + 1 for i in np.flatnonzero(analysis.matches.right)} == matched
    assert {i + 1 for i in np.flatnonzero(~analysis.matches.counts)} == ignored
    assert len(matched) > 10 and ignored


def test_the_best_threshold_is_the_best_of_all(random_case):
    matches = random_case[3].matches
    best = matches.best_threshold()
    assert brute_f1(matches, best) == max(brute_f1(matches, s) for s in set(matches.scores()))


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_the_matrix_is_that_of_brute_force(threshold, random_case):
    task, truth, _, analysis = random_case
    ours = confusion(truth, analysis.matches, threshold, task)
    np.testing.assert_array_equal(ours, brute_confusion(task, truth, analysis.matches, threshold))
    assert np.trace(ours) >= 5 and ours[0, 2] + ours[2, 0] > 0


def test_errors_are_those_of_brute_force(random_case):
    task, truth, found, _ = random_case
    order = np.random.RandomState(0).permutation(len(found))  # ties have no defined order
    found = [
        {**x, "score": (n + 1) / (len(found) + 1)}
        for x, n in zip(found, order.tolist(), strict=True)
    ]
    analysis = analyse(truth, found, task)
    counts, delta_ap = brute_errors(task, truth, analysis.matches)
    assert analysis.errors["counts"] == {k: counts[k] for k in analysis.errors["counts"]}
    assert min(counts.values()) > 0
    for kind, value in delta_ap.items():
        assert analysis.errors["delta_ap"][kind] == pytest.approx(value, abs=1e-9), kind


def test_masks_are_a_task_if_all_detections_have_one():
    assert tasks_of([{"segmentation": 1}]) == ["bbox", "segm"]
    assert tasks_of([{"segmentation": 1}, {}]) == tasks_of([]) == ["bbox"]


@pytest.mark.parametrize(
    "text, message",
    [("[{", "is being written"), ("{}", "not a list of"), ('[{"score": 1}]', "not a list of")],
)
def test_damaged_predictions_are_refused(text, message, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_detections(tmp_path / "x.json")
