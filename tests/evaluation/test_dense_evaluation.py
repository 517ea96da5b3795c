"""A perfect detector has AP 100, however dense the images are and whatever the json says."""

import json
import logging

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from pycocotools import mask as coco_mask

from d2_isonet.config.loading import load_config
from d2_isonet.data.datasets import register_coco_files
from d2_isonet.engine.trainer import Trainer
from d2_isonet.evaluation.build import coco_evaluator
from d2_isonet.utils.messages import UserError

NAME = "perfect_set"
SIDE = 400  # of the images, in pixels


def truth(number: int) -> dict:
    """Two images, the first one with `number` objects beside each other."""
    places = [(1, 20 * (i % 20), 20 * (i // 20)) for i in range(number)] + [(2, 40, 60)]
    return {
        "images": [{"id": i, "file_name": "", "width": SIDE, "height": SIDE} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 1, "bbox": [x, y, 16, 12], "area": 192,
             "iscrowd": 0, "segmentation": [[x, y, x + 16, y, x + 16, y + 12, x, y + 12]]}
            for i, (image, x, y) in enumerate(places, 1)
        ],
    }  # fmt: skip


@pytest.fixture
def perfect(tmp_path):
    """The results of the truth, given as predictions to the evaluator of a config."""

    def evaluate(content: dict, *opts: str) -> dict:
        (tmp_path / "x.json").write_text(json.dumps(content))
        register_coco_files(NAME, str(tmp_path / "x.json"), "")
        cfg = load_config("configs/risonet18_dc5.yaml", ["OUTPUT_DIR", str(tmp_path), *opts])
        evaluator = Trainer.build_evaluator(cfg, NAME)
        evaluator.reset()
        for image in DatasetCatalog.get(NAME):
            boxes = [a["bbox"] for a in image["annotations"]]
            boxes = BoxMode.convert(torch.tensor(boxes), BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
            found = Instances((SIDE, SIDE), pred_boxes=Boxes(boxes))
            found.scores = torch.linspace(1, 0.5, len(boxes))
            found.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
            masks = [coco_mask.frPyObjects(_mask(*box), SIDE, SIDE) for box in boxes.tolist()]
            found.pred_masks = torch.from_numpy(
                np.stack([coco_mask.decode(mask)[..., 0] for mask in masks])
            ).bool()
            evaluator.process([image], [{"instances": found}])
        return {task: dict(values) for task, values in evaluator.evaluate().items()}

    yield evaluate
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)


def _mask(x0: float, y0: float, x1: float, y1: float) -> list:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def test_the_limit_of_the_evaluator_follows_that_of_the_model(perfect, caplog, tmp_path):
    with caplog.at_level(logging.INFO):
        results = perfect(truth(400), "TEST.DETECTIONS_PER_IMAGE", "500")
    for task in ("bbox", "segm"):
        assert results[task]["AP"] == results[task]["APs"] == 100
    report = json.loads((tmp_path / "inference" / NAME / "per_class.json").read_text())
    assert report["max_detections"] == 500 and report["tasks"]["bbox"][0]["AR"] == 100
    assert "0 of 2 images are at the limit of 500 detections" in caplog.text


def test_a_model_without_limit_is_measured_without(perfect):
    assert perfect(truth(400), "TEST.DETECTIONS_PER_IMAGE", "-1")["segm"]["AP"] == 100


def test_images_at_the_limit_are_counted(perfect, caplog):
    with caplog.at_level(logging.WARNING):
        assert perfect(truth(400))["bbox"]["AP"] < 30
    assert "1 of 2 images are at the limit of 100 detections (TEST.DETECTIONS" in caplog.text


def with_each(**values):
    def change(content: dict) -> None:
        for annotation in content["annotations"]:
            annotation.update(values)

    return change


def of_floats(content: dict) -> None:
    for image in content["images"]:
        image.update(width=float(SIDE), height=float(SIDE))


def numbered_from_0(content: dict) -> None:
    for number, annotation in enumerate(content["annotations"]):
        annotation["id"] = number


CHANGES = {
    "nothing": lambda content: None,
    "ids from 0": numbered_from_0,
    "ids of text": lambda c: [a.update(id=str(a["id"])) for a in c["annotations"]],
    "negative areas": with_each(area=-5.0),
    "areas of 0": with_each(area=0),
    "huge areas": with_each(area=1e12),
    "areas that are no numbers": with_each(area=None),
    "no areas": lambda c: [a.pop("area") for a in c["annotations"]],
    "areas in fractions": with_each(area=0.0012),
    "sizes of floats": of_floats,
    "nested keypoints": with_each(keypoints=[[1, 2, 2]]),
    "keypoints of text": with_each(keypoints="1 2 2"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_perfect_detector_is_perfect(change, perfect):
    content = truth(20)
    change(content)
    results = perfect(content)
    for task in ("bbox", "segm"):
        assert results[task]["AP"] == results[task]["APs"] == 100, results


def test_polygons_far_outside_are_refused_before_they_are_rasterized(tmp_path):
    content = truth(3)
    content["annotations"][1]["segmentation"] = [[1e9, 0, 5, 5, 0, 5]]
    (tmp_path / "x.json").write_text(json.dumps(content))
    register_coco_files(NAME, str(tmp_path / "x.json"), "")
    with pytest.raises(
        UserError, match="x.json: 1 annotations have masks that .*far outside .*: 2"
    ):
        coco_evaluator(NAME, str(tmp_path))


def test_keypoints_of_pythons_sets_do_not_stop_their_conversion(tmp_path):
    annotation = {"bbox": [1, 2, 30, 40], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    dicts = [{"file_name": "", "image_id": 1, "height": 90, "width": 90,
              "annotations": [{**annotation, "keypoints": [[1, 2, 2]]}]}]  # fmt: skip
    DatasetCatalog.register("python_keypoints", lambda: dicts)
    MetadataCatalog.get("python_keypoints").thing_classes = ["cell"]
    (found,) = coco_evaluator("python_keypoints", str(tmp_path))._coco_api.anns.values()
    assert found["bbox"] == [1, 2, 30, 40] and "keypoints" not in found
    assert (
        DatasetCatalog.get("python_keypoints") is dicts
        and "keypoints" in dicts[0]["annotations"][0]
    )
