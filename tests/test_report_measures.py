"""What the report measures: against hand-computed cases, pycocotools and brute force."""

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import hotcoco
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from benchmarks.coco_evaluation import random_detections, random_truth  # noqa: E402
from reporting.detection import STATS, analyse, read_detections, read_truth, tasks_of  # noqa: E402
from reporting.matches import confusion, image_scores  # noqa: E402

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


def test_one_detection_of_each_kind_is_told_as_such(tmp_path):
    analysis = analyse(hotcoco, truth_of(tmp_path, OBJECTS), DETECTIONS, "bbox")
    kinds = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
    assert analysis.errors["counts"] == dict.fromkeys(kinds, 1)
    assert analysis.matches.right.tolist() == [True] + 6 * [False]
    assert analysis.matches.counts.tolist() == 6 * [True] + [False]
    assert analysis.matches.score_of_match == {0: 0.9}


def test_the_matrix_counts_objects_by_true_and_predicted_class(tmp_path):
    truth = truth_of(tmp_path, OBJECTS)
    matches = analyse(hotcoco, truth, DETECTIONS, "bbox").matches
    expected = [[1, 0, 1], [1, 0, 1], [3, 1, 0]]
    np.testing.assert_array_equal(confusion(hotcoco, truth, matches, 0.0), expected)
    expected = [[1, 0, 1], [0, 0, 2], [1, 0, 0]]
    np.testing.assert_array_equal(confusion(hotcoco, truth, matches, 0.8), expected)
    expected = [[0, 0, 2], [0, 0, 2], [0, 0, 0]]
    np.testing.assert_array_equal(confusion(hotcoco, truth, matches, 0.99), expected)


def test_images_are_ranked_by_what_is_right_wrong_and_missed(tmp_path):
    truth = truth_of(tmp_path, OBJECTS)
    matches = analyse(hotcoco, truth, DETECTIONS, "bbox").matches
    assert image_scores(truth, matches, 0.75) == [(1, 1, 1, 2), (2, 0, 0, 1)]
    assert image_scores(truth, matches, 0.75)[0].f1 == pytest.approx(2 / 5)
    assert matches.best_threshold() == 0.9  # 1 of 1 right, of 4 objects: F1 0.4


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
    return request.param, truth, found, analyse(hotcoco, truth, found, request.param)


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


def overlaps(task: str, truth: COCO, image_id: int, found: list[dict]) -> tuple[list, np.ndarray]:
    """The image's annotations that are no crowds, and IoU (detections, annotations)."""
    objects = [a for a in truth.imgToAnns[image_id] if not a["iscrowd"]]
    if task == "bbox":
        regions = [x["bbox"] for x in found], [x["bbox"] for x in objects]
    else:
        regions = [x["segmentation"] for x in found], [truth.annToRLE(x) for x in objects]
    if not all(regions):
        return objects, np.zeros((len(found), len(objects)))
    return objects, coco_mask.iou(*regions, [0] * len(objects))


def brute_confusion(task, truth, matches, threshold) -> np.ndarray:
    ids = sorted(truth.cats)
    matrix = np.zeros((len(ids) + 1, len(ids) + 1), int)
    for image_id in truth.imgs:
        own = [
            d
            for d, ok in zip(matches.detections, matches.shown(threshold), strict=True)
            if ok and d["image_id"] == image_id
        ]
        own.sort(key=lambda d: -d["score"])
        objects, iou = overlaps(task, truth, image_id, own)
        free = np.ones(len(objects), bool)
        for d, row in zip(own, iou, strict=True):
            best = int(np.argmax(np.where(free, row, -1))) if free.any() else -1
            hit = best >= 0 and row[best] >= 0.5
            matrix[
                ids.index(objects[best]["category_id"]) if hit else -1, ids.index(d["category_id"])
            ] += 1
            if hit:
                free[best] = False
        for place in np.flatnonzero(free):
            matrix[ids.index(objects[place]["category_id"]), -1] += 1
    return matrix


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_the_matrix_is_that_of_brute_force(threshold, random_case):
    task, truth, _, analysis = random_case
    ours = confusion(hotcoco, truth, analysis.matches, threshold, task)
    np.testing.assert_array_equal(ours, brute_confusion(task, truth, analysis.matches, threshold))
    assert np.trace(ours) >= 5 and ours[0, 2] + ours[2, 0] > 0


def average_precision(points: list[tuple[float, bool]], objects: int) -> float:
    """COCO's: the mean over 101 recalls of the best precision from that recall on."""
    points = sorted(points, key=lambda p: -p[0])
    hits = np.cumsum([p[1] for p in points])
    precision = hits / np.arange(1, len(points) + 1)
    best = [max(precision[hits >= r * objects - 1e-9], default=0.0) for r in np.linspace(0, 1, 101)]
    return 100 * float(np.mean(best))


def brute_errors(task, truth, matches) -> tuple[Counter, dict]:
    """TIDE's kinds and dAP, from its definitions (Bolya et al. 2020, sections 2.1 and 2.2)."""
    points = []  # class, score, right, kind, the object's place in its image
    missed, counts = [], Counter()
    for image_id in truth.imgs:
        places = [
            n
            for n, d in enumerate(matches.detections)
            if d["image_id"] == image_id and matches.counts[n]
        ]
        own = [matches.detections[n] for n in places]
        objects, iou = overlaps(task, truth, image_id, own)
        all_places = {id(a): n for n, a in enumerate(truth.dataset["annotations"])}
        is_found = np.array([all_places[id(a)] in matches.score_of_match for a in objects], bool)
        reachable = set()
        for n, d, row in zip(places, own, iou, strict=True):
            same = np.array([a["category_id"] == d["category_id"] for a in objects], bool)
            row_same, row_other = np.where(same, row, 0.0), np.where(same, 0.0, row)
            kind, target = "", None
            if not matches.right[n]:
                if len(row) == 0:
                    kind = "Bkg"
                elif 0.1 <= row_same.max() <= 0.5:
                    kind, target = "Loc", int(row_same.argmax())
                elif row_other.max() >= 0.5:
                    kind, target = "Cls", int(row_other.argmax())
                elif (row_same * is_found).max() >= 0.5:
                    kind = "Dupe"
                else:
                    kind = "Bkg" if row.max() <= 0.1 else "Both"
                counts[kind] += 1
            if target is not None and not is_found[target]:
                reachable.add(target)
                goal = (image_id, target, objects[target]["category_id"])
            else:
                goal = None
            points.append((d["category_id"], d["score"], bool(matches.right[n]), kind, goal))
        missed += [
            a["category_id"]
            for n, a in enumerate(objects)
            if not is_found[n] and n not in reachable
        ]
    counts["Miss"] = len(missed)
    return counts, {
        kind: mean_ap(truth, fixed(points, kind), Counter(missed) if kind == "Miss" else Counter())
        - mean_ap(truth, fixed(points, ""), Counter())
        for kind in counts
    }


def fixed(points: list[tuple], kind: str) -> list[tuple]:
    """(class, score, right) with the errors of one kind corrected: the best detection of a free
    object becomes right, all others are taken away."""
    best = {}
    for n, (_, score, _, own, goal) in enumerate(points):
        if kind and own == kind and goal and (goal not in best or score > points[best[goal]][1]):
            best[goal] = n
    corrected = {n: goal[2] for goal, n in best.items()}
    return [
        (corrected.get(n, category), score, right or n in corrected)
        for n, (category, score, right, own, _) in enumerate(points)
        if not kind or own != kind or n in corrected
    ]


def mean_ap(truth: COCO, points: list[tuple], fewer: Counter) -> float:
    objects = Counter(a["category_id"] for a in truth.dataset["annotations"] if not a["iscrowd"])
    by_class = defaultdict(list)
    for category, score, right in points:
        by_class[category].append((score, right))
    values = []
    for category, number in objects.items():
        left = number - fewer[category]
        values.append(average_precision(by_class[category], left) if left else 0.0)
    return float(np.mean(values))


def test_errors_are_those_of_brute_force(random_case):
    task, truth, found, _ = random_case
    order = np.random.RandomState(0).permutation(len(found))  # ties have no defined order
    found = [
        {**x, "score": (n + 1) / (len(found) + 1)}
        for x, n in zip(found, order.tolist(), strict=True)
    ]
    analysis = analyse(hotcoco, truth, found, task)
    counts, delta_ap = brute_errors(task, truth, analysis.matches)
    assert analysis.errors["counts"] == {k: counts[k] for k in analysis.errors["counts"]}
    assert min(counts.values()) > 0
    for kind, value in delta_ap.items():
        assert analysis.errors["delta_ap"][kind] == pytest.approx(value, abs=1e-9), kind


def test_masks_are_a_task_where_all_have_one():
    assert tasks_of([{"segmentation": 1}]) == ["bbox", "segm"]
    assert tasks_of([{"segmentation": 1}, {}]) == tasks_of([]) == ["bbox"]


@pytest.mark.parametrize(
    "text, message",
    [("[{", "is being written"), ("{}", "no list of"), ('[{"score": 1}]', "no list of")],
)
def test_damaged_predictions_are_refused(text, message, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_detections(tmp_path / "x.json")
