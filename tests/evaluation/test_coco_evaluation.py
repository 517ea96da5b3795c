"""COCO's measures by hotcoco against pycocotools, to the last bit."""

import contextlib
import copy
import io
from argparse import Namespace

import hotcoco
import numpy as np
import pycocotools.mask
import pytest
from benchmarks import coco_evaluation as benchmark
from detectron2.evaluation.coco_evaluation import COCOevalMaxDets
from pycocotools.coco import COCO

from d2_isonet.evaluation import coco_evaluation
from d2_isonet.evaluation.coco_measures import coco_measures

SIZE = (120, 100)  # height, width of the images
CATEGORIES = (3, 90, 2**40, 7)  # not in order; 7 has no object


def random_data(seed: int, images: int = 7, per_image: int = 25) -> tuple[dict, list[dict]]:
    """A data set and detections, with and without each other; "ignore" counts for nothing."""
    truth = benchmark.random_truth(images, CATEGORIES, seed, SIZE)
    for annotation in truth["annotations"][::4]:
        annotation["ignore"] = 1
    predictions = benchmark.random_detections(truth, per_image, masks=True, seed=seed + 1000)
    found = [d for p in predictions if images < 4 or p["image_id"] % 4 for d in p["instances"]]
    order = np.random.RandomState(seed).permutation(len(found))
    return truth, [found[number] for number in order]


def api_of(truth: dict) -> COCO:
    api = COCO()
    api.dataset = copy.deepcopy(truth)
    with contextlib.redirect_stdout(io.StringIO()):
        api.createIndex()
    return api


def by_pycocotools(truth, detections, task, max_dets=(1, 10, 100), img_ids=None):
    detections, api = copy.deepcopy(detections), api_of(truth)
    for detection in detections:
        del detection["bbox" if task == "segm" else "segmentation"]
    evaluation = COCOevalMaxDets(api, api.loadRes(detections), task)
    evaluation.params.maxDets = list(max_dets)
    if img_ids is not None:
        evaluation.params.imgIds = img_ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def assert_same(truth, detections, max_dets=(1, 10, 100), img_ids=None):
    """In both tasks; returns what pycocotools finds for boxes, where something must match."""
    for task in ("segm", "bbox"):
        expected = by_pycocotools(truth, detections, task, max_dets, img_ids)
        ours = coco_measures(hotcoco, api_of(truth), detections, task, list(max_dets), img_ids)
        for name in ("precision", "recall", "scores"):
            np.testing.assert_array_equal(ours.eval[name], expected.eval[name])
        np.testing.assert_array_equal(ours.stats, expected.stats)
    assert expected.stats.shape == (12,) and expected.stats[8] > 0.05
    return expected


@pytest.mark.parametrize("seed", range(10))
def test_random_boxes_and_masks_measure_alike(seed):
    expected = assert_same(*random_data(seed))
    absent = sorted(CATEGORIES).index(7)
    assert ((expected.eval["precision"] == -1).all((0, 1, 3, 4)) == np.eye(4)[absent]).all()


def test_more_than_a_hundred_detections_an_image_measure_alike():
    assert_same(*random_data(1, images=3, per_image=900))


@pytest.mark.parametrize("most", [1, 5, 10, 30, 1000])
def test_other_limits_of_detections_measure_alike(most):
    assert_same(*random_data(2, per_image=150), max_dets=(1, 10, most))


def test_the_images_asked_for_measure_alike():
    truth, detections = random_data(3)
    images = [image["id"] for image in truth["images"][2:6]]
    assert_same(truth, detections, img_ids=[*images, 987654])


@pytest.mark.parametrize(
    "name", [lambda i: i + 2**53, lambda i: i + 0.5, lambda i: i - 40, "{}.jpg".format]
)
def test_ids_of_images_may_be_huge_fractional_negative_or_text(name):
    truth, detections = random_data(4)
    for entry in truth["annotations"] + detections:
        entry["image_id"] = name(entry["image_id"])
    for image in truth["images"]:
        image["id"] = name(image["id"])
    assert_same(truth, detections)


@pytest.mark.parametrize("first_id", [-500, 2**60])
def test_ids_of_annotations_may_be_negative_or_huge(first_id):
    truth, detections = random_data(5)
    for number, annotation in enumerate(truth["annotations"]):
        annotation["id"] = number + first_id
    assert_same(truth, detections)


def some_unknown_categories(truth, detections):
    for entry in truth["annotations"][::3] + detections[::3]:
        entry["category_id"] = 12345


def an_annotation_of_no_image(truth, detections):
    truth["annotations"][0]["image_id"] = 99999


def areas_on_the_borders(truth, detections):
    for number, annotation in enumerate(truth["annotations"]):
        annotation["area"] = (0, 32**2, 96**2)[number % 3]


def empty_regions(truth, detections):
    nothing = pycocotools.mask.encode(np.zeros(SIZE, dtype=np.uint8, order="F"))["counts"]
    for detection in detections[::2]:
        detection["bbox"][2] = 0.0
        detection["segmentation"] = {"size": list(SIZE), "counts": nothing.decode()}


def only_crowds_in_an_image(truth, detections):
    chosen = truth["annotations"][0]["image_id"]
    for annotation in truth["annotations"]:
        annotation["iscrowd"] |= annotation["image_id"] == chosen


def scores_that_nearly_tie(truth, detections):
    generator = np.random.RandomState(0)
    for detection in detections:
        detection["score"] = 0.3 + generator.randn() * 1e-16


def other_forms_of_rle(truth, detections):
    crowds = [annotation for annotation in truth["annotations"] if annotation["iscrowd"]]
    for annotation in crowds:
        mask = pycocotools.mask.decode(annotation["segmentation"]).ravel(order="F").tolist()
        ends = [i for i in range(1, len(mask)) if mask[i] != mask[i - 1]]
        runs = np.diff([0] * (1 + mask[0]) + ends + [len(mask)]).tolist()
        annotation["segmentation"]["counts"] = runs
    assert crowds
    for detection in detections:
        detection["segmentation"]["counts"] = detection["segmentation"]["counts"].encode()


@pytest.mark.parametrize(
    "change",
    [
        some_unknown_categories,
        an_annotation_of_no_image,
        areas_on_the_borders,
        empty_regions,
        only_crowds_in_an_image,
        scores_that_nearly_tie,
        other_forms_of_rle,
    ],
)
def test_awkward_data_measures_alike(change):
    truth, detections = random_data(6)
    change(truth, detections)
    assert_same(truth, detections)


def test_without_annotations_nothing_is_measured():
    truth, detections = random_data(7)
    truth["annotations"] = []
    ours = coco_measures(hotcoco, api_of(truth), detections, "bbox", [1, 10, 100]).stats
    np.testing.assert_array_equal(ours, by_pycocotools(truth, detections, "bbox").stats)
    assert (ours == -1).all()


def test_an_image_that_the_data_set_lacks_is_refused():
    truth, detections = random_data(8)
    detections[0]["image_id"] = 99999
    with pytest.raises(ValueError, match="1 images with detections .* id 99999"):
        coco_measures(hotcoco, api_of(truth), detections, "bbox", [1, 10, 100])


def test_the_benchmark_compares_both_tasks():
    rows = list(benchmark.compare(Namespace(quick=True, repetitions=1)))
    assert [row.name.split(",")[0] for row in rows] == ["boxes", "boxes and masks"]
    assert all("12 numbers identical" in row.note for row in rows)


def test_the_benchmark_refuses_other_numbers(monkeypatch):
    def worse(*args):
        measures = coco_measures(*args)
        measures.eval["recall"][0, 0, 0, 2] += 1e-12
        return measures

    monkeypatch.setattr(coco_evaluation, "coco_measures", worse)
    with pytest.raises(RuntimeError, match="recall of hotcoco and pycocotools differ by up to"):
        list(benchmark.compare(Namespace(quick=True, repetitions=1)))
