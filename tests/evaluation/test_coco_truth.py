"""What an evaluation compares with, of data sets that have no COCO json."""

import json
import logging

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode

from d2_isonet.evaluation.build import coco_evaluator

NAME = "truth_set"


@pytest.fixture
def dicts():
    box = {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    images = [{"file_name": "0.jpg", "image_id": 0, "height": 9, "width": 9, "annotations": [box]}]
    DatasetCatalog.register(NAME, lambda: images)
    MetadataCatalog.get(NAME).thing_classes = ["cat"]
    yield images
    DatasetCatalog.remove(NAME)
    MetadataCatalog.pop(NAME)


def truth(folder):
    return coco_evaluator(NAME, str(folder))._coco_api


def test_row_64_a_set_that_changed_is_converted_anew_in_the_same_folder(dicts, tmp_path):
    assert len(truth(tmp_path).imgs) == 1
    dicts.extend({**dicts[0], "image_id": i} for i in range(1, 5))
    assert len(truth(tmp_path).imgs) == 5  # detectron2 takes the file of the one image


def test_a_later_process_converts_anew_too(dicts, tmp_path):
    truth(tmp_path)
    MetadataCatalog.pop(NAME)  # what a new process starts with
    MetadataCatalog.get(NAME).thing_classes = ["cat"]
    dicts[0]["annotations"][0]["bbox"] = [2, 2, 5, 5]
    assert truth(tmp_path).anns[1]["bbox"] == [2, 2, 5, 5]


def test_other_class_names_are_a_change(dicts, tmp_path):
    truth(tmp_path)
    vars(MetadataCatalog.get(NAME))["thing_classes"] = ["dog"]
    assert truth(tmp_path).cats[0]["name"] == "dog"


def test_a_set_that_did_not_change_is_converted_once(dicts, tmp_path):
    for _ in range(2):
        truth(tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_the_json_that_a_set_is_registered_with_is_taken_itself(coco_files, tmp_path):
    register_coco_instances("json_set", {}, *map(str, coco_files))
    assert len(coco_evaluator("json_set", str(tmp_path / "out"))._coco_api.imgs) == 4
    assert MetadataCatalog.get("json_set").json_file == str(coco_files[0])


@pytest.mark.parametrize("key", [True, False])
def test_an_evaluation_without_ground_truth_says_so_and_ends(key, coco_files, tmp_path, caplog):
    content = json.loads(coco_files[0].read_text())
    content["annotations"] = []
    if not key:
        del content["annotations"]
    coco_files[0].write_text(json.dumps(content))
    name = f"no_truth_{key}"
    register_coco_instances(name, {}, *map(str, coco_files))
    DatasetCatalog.get(name)
    with caplog.at_level(logging.WARNING):
        evaluator = coco_evaluator(name, str(tmp_path / "out"))
    assert f"'{name}' has no ground truth, {coco_files[0]} no annotations" in caplog.text
    found = {"image_id": 0, "category_id": 0, "bbox": [1, 2, 3, 4], "score": 0.5}
    evaluator._predictions = [{"image_id": 0, "instances": [found]}]
    results = evaluator.evaluate()
    assert (tmp_path / "out/coco_instances_results.json").is_file()
    assert results == {} or all(value != value for value in results["bbox"].values())
