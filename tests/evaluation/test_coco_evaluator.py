"""detectron2's COCOEvaluator with hotcoco: results, files, and what is left to pycocotools."""

import json
import logging
import sys
from pathlib import Path

import hotcoco
import numpy as np
import pycocotools.mask
import pytest
import torch
from benchmarks.coco_evaluation import random_detections, random_truth
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances

from d2_isonet.evaluation import coco_evaluation
from d2_isonet.evaluation.build import coco_evaluator
from d2_isonet.evaluation.coco_evaluation import FastCOCOEvaluator
from d2_isonet.evaluation.coco_measures import coco_measures, import_hotcoco

SIZE = (120, 100)  # height, width of the images
CATEGORIES = (3, 90, 2**40, 7)  # not in order; 7 has no object


def random_data() -> tuple[dict, list[dict]]:
    """A data set and detections with masks, none of them in the last two images."""
    truth = random_truth(7, CATEGORIES, seed=8, size=SIZE)
    predictions = random_detections(truth, 25, masks=True)
    return truth, [result for p in predictions[:-2] for result in p["instances"]]


def instances_of(detections: list[dict], masks: bool) -> Instances:
    boxes = torch.tensor([d["bbox"] for d in detections]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    found = Instances(SIZE, pred_boxes=Boxes(boxes))
    found.scores = torch.tensor([d["score"] for d in detections])
    found.pred_classes = torch.tensor([CATEGORIES.index(d["category_id"]) for d in detections])
    if masks:
        rles = [d["segmentation"] for d in detections]
        decoded = pycocotools.mask.decode(rles) if rles else np.zeros((*SIZE, 0))
        found.pred_masks = torch.from_numpy(decoded).permute(2, 0, 1).bool()
    return found


@pytest.fixture
def evaluator_of(tmp_path, request):
    """The evaluator of a data set, with hotcoco or without; its files are in tmp_path/BACK_END."""

    def build(back_end: str, truth: dict, **options) -> FastCOCOEvaluator:
        file = tmp_path / "truth.json"
        file.write_text(json.dumps(truth))
        name = f"{request.node.name}_{back_end}"
        MetadataCatalog.pop(name, None)
        MetadataCatalog.get(name).set(
            json_file=str(file),
            thing_dataset_id_to_contiguous_id={c: number for number, c in enumerate(CATEGORIES)},
            thing_classes=["cat", "dog", "ship", "tree"],
        )
        folder = str(tmp_path / back_end)
        evaluator = FastCOCOEvaluator(name, output_dir=folder, use_fast_impl=False, **options)
        if back_end == "pycocotools":
            evaluator._hotcoco = None
        evaluator.reset()
        return evaluator

    return build


@pytest.fixture
def evaluate(evaluator_of):
    """Results of both back ends for the same Instances."""

    def run(truth, detections, masks=True, img_ids=None, **options) -> list[dict]:
        results = []
        for back_end in ("hotcoco", "pycocotools"):
            evaluator = evaluator_of(back_end, truth, **options)
            for image in truth["images"]:
                of_image = [d for d in detections if d["image_id"] == image["id"]]
                found = instances_of(of_image, masks)
                evaluator.process([{"image_id": image["id"]}], [{"instances": found}])
            results.append({t: dict(r) for t, r in evaluator.evaluate(img_ids).items()})
        return results

    return run


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The tasks that hotcoco was asked for."""
    tasks = []

    def recorded(module, truth, results, task, *args):
        tasks.append(task)
        return coco_measures(module, truth, results, task, *args)

    monkeypatch.setattr(coco_evaluation, "coco_measures", recorded)
    return tasks


@pytest.mark.parametrize(
    "options", [{}, {"masks": False}, {"max_dets_per_image": 7}, {"tasks": ("bbox",)}]
)
def test_the_evaluators_results_and_json_are_the_same(options, evaluate, asked, tmp_path):
    ours, expected = evaluate(*random_data(), **options)
    tasks = ["bbox"] if {"masks", "tasks"} & options.keys() else ["bbox", "segm"]
    assert asked == tasks == list(ours)
    np.testing.assert_equal(ours, expected)
    for task in tasks:
        assert list(ours[task])[6:] == ["AP-cat", "AP-dog", "AP-ship", "AP-tree"]
        assert ours[task]["AP50"] > 1
    files = [tmp_path / b / "coco_instances_results.json" for b in ("hotcoco", "pycocotools")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_evaluator_measures_the_images_asked_for(evaluate, asked):
    truth, detections = random_data()
    some = [image["id"] for image in truth["images"][2:6]]
    ours, expected = evaluate(truth, detections, img_ids=some)
    np.testing.assert_equal(ours, expected)
    assert asked and ours != evaluate(truth, detections)[0]


@pytest.mark.parametrize("masks", [False, True])
def test_no_detections_are_an_ap_of_0_with_its_reason(masks, evaluate, caplog):
    ours, expected = evaluate(random_data()[0], [], masks=masks)
    np.testing.assert_equal(ours, expected)
    assert list(ours) == (["bbox", "segm"] if masks else ["bbox"])
    for result in ours.values():
        assert result["AP"] == result["AP50"] == 0
        classes = [result[f"AP-{name}"] for name in ("cat", "dog", "ship", "tree")]
        assert sorted(classes, key=np.isnan)[:3] == [0, 0, 0]
        assert np.isnan(classes).sum() == 1  # one has no object
    assert "detects nothing in 7 images: AP (bbox) is 0" in caplog.text


def test_no_detections_where_nothing_is_are_nan(evaluate):
    ours, _ = evaluate({**random_data()[0], "annotations": []}, [], masks=False)
    assert np.isnan(ours["bbox"]["AP"])


def nan_scores(truth, detections):
    detections[3]["score"] = detections[5]["score"] = float("nan")


def test_what_hotcoco_refuses_is_left_to_pycocotools(evaluate, asked):
    truth, detections = random_data()
    nan_scores(truth, detections)
    ours, expected = evaluate(truth, detections)
    np.testing.assert_equal(ours, expected)
    assert asked == [] and ours["bbox"]["AP"] > 1


@pytest.mark.parametrize("ids", [[0], [2], ["1"], [None], [1.5], [True, -1]], ids=str)
def test_the_ids_of_annotations_do_not_change_the_numbers(ids, evaluate, asked, caplog):
    truth, detections = random_data()
    first = truth["annotations"][0]
    first |= {"iscrowd": 0}
    found = {key: first[key] for key in ("image_id", "category_id", "bbox")}
    detections.append({**detections[0], "score": 1.0, **found})
    right = evaluate(truth, detections)
    for annotation, value in zip(truth["annotations"], ids, strict=False):
        annotation["id"] = value  # pycocotools takes a match with 0 for none
    np.testing.assert_equal(evaluate(truth, detections), right)
    assert len(asked) == 4 and "the annotations are numbered from 1" in caplog.text


def test_a_class_that_the_data_set_lacks_is_refused(evaluator_of):
    truth, detections = random_data()
    evaluator = evaluator_of("hotcoco", truth)
    evaluator._predictions = [{"image_id": 1, "instances": [{**detections[0], "category_id": 4}]}]
    with pytest.raises(ValueError, match="predicts class 4, but .* has only 4 classes"):
        evaluator.evaluate()


def registered(name: str, coco_files: tuple[Path, Path]) -> str:
    MetadataCatalog.pop(name, None)
    MetadataCatalog.get(name).set(json_file=str(coco_files[0]))
    return name


def test_without_hotcoco_one_warning_is_given(monkeypatch, caplog, coco_files, tmp_path):
    name = registered("no_hotcoco", coco_files)
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    import_hotcoco.cache_clear()
    with caplog.at_level(logging.WARNING, logger="d2_isonet"):
        evaluators = [coco_evaluator(name, str(tmp_path)) for _ in range(2)]
    import_hotcoco.cache_clear()
    (warning,) = [r.getMessage() for r in caplog.records if r.name.startswith("d2_isonet")]
    assert "pip install hotcoco" in warning and "\n" not in warning
    assert [evaluator._hotcoco for evaluator in evaluators] == [None, None]


def test_evaluators_of_trainings_are_the_fast_ones(coco_files, tmp_path):
    evaluator = coco_evaluator(registered("fast", coco_files), str(tmp_path))
    assert isinstance(evaluator, FastCOCOEvaluator) and evaluator._hotcoco is hotcoco
