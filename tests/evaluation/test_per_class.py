"""The results of each class: pycocotools' numbers, in both files, of each data set."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.coco_evaluation import random_detections, random_truth
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2_isonet.engine.trainer import Trainer
from d2_isonet.evaluation import per_class
from d2_isonet.evaluation.coco_evaluation import FastCOCOEvaluator
from d2_isonet.evaluation.per_class import folder_of, write_per_class
from d2_isonet.utils.files import SaveError

NAMES = {3: "cat", 7: "no object", 90: "dog"}
ABOUT = {"dataset": "x"}


@pytest.fixture(params=["hotcoco", "pycocotools"])
def evaluated(request, tmp_path):
    """Truth, detections (COCO's form) and the folder of an evaluation by either back end."""
    truth = random_truth(9, [3, 90, 7], seed=3)  # 7 has no object
    found = [x for p in random_detections(truth, 20, masks=False) for x in p["instances"]]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    name = f"classes/{request.param}"
    MetadataCatalog.pop(name, None)
    MetadataCatalog.get(name).set(
        json_file=str(tmp_path / "truth.json"), image_root=str(tmp_path),
        thing_dataset_id_to_contiguous_id={3: 0, 7: 1, 90: 2}, thing_classes=list(NAMES.values()),
    )  # fmt: skip
    evaluator = FastCOCOEvaluator(name, output_dir=str(tmp_path), use_fast_impl=False)
    if request.param == "pycocotools":
        evaluator._hotcoco = None
    evaluator.reset()
    for image in truth["images"]:
        of_image = [d for d in found if d["image_id"] == image["id"]]
        boxes = torch.tensor([d["bbox"] for d in of_image]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances((image["height"], image["width"]), pred_boxes=Boxes(boxes))
        instances.scores = torch.tensor([d["score"] for d in of_image])
        instances.pred_classes = torch.tensor(
            [sorted(NAMES).index(d["category_id"]) for d in of_image]
        )
        evaluator.process([{"image_id": image["id"]}], [{"instances": instances}])
    evaluator.evaluate()
    return truth, tmp_path, tmp_path / f"classes_{request.param}"


def by_pycocotools(truth: dict, folder: Path, category_id: int) -> np.ndarray:
    """The twelve numbers of one category alone, in percent."""
    api = COCO()
    api.dataset = truth
    api.createIndex()
    found = api.loadRes(str(folder / "coco_instances_results.json"))
    evaluation = COCOeval(api, found, "bbox")
    evaluation.params.catIds = [category_id]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return 100 * evaluation.stats


def test_every_number_is_pycocotools(evaluated):
    truth, folder, results = evaluated
    rows = json.loads((results / "per_class.json").read_text())["tasks"]["bbox"]
    assert [(row["category_id"], row["class"]) for row in rows] == list(NAMES.items())
    for row in (rows[0], rows[2]):
        ours = [
            row[x] for x in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "ARs", "ARm", "ARl")
        ]
        stats = by_pycocotools(truth, folder, row["category_id"])
        expected = [
            None if x < 0 else pytest.approx(x, abs=1e-12)
            for x in stats[[0, 1, 2, 3, 4, 5, 8, 9, 10, 11]]
        ]
        assert ours == expected and ours[0] > 1
    assert rows[1]["AP"] is rows[1]["AR"] is None


def test_objects_crowds_and_detections_are_counted(evaluated):
    truth, folder, results = evaluated
    found = json.loads((folder / "coco_instances_results.json").read_text())
    for row in json.loads((results / "per_class.json").read_text())["tasks"]["bbox"]:
        own = [x for x in truth["annotations"] if x["category_id"] == row["category_id"]]
        assert row["crowds"] == sum(x["iscrowd"] for x in own)
        assert row["objects"] == len(own) - row["crowds"]
        assert row["detections"] == sum(x["category_id"] == row["category_id"] for x in found)


def test_the_csv_says_the_same_and_the_json_what_was_evaluated(evaluated):
    _, folder, results = evaluated
    content = json.loads((results / "per_class.json").read_text())
    table = list(csv.DictReader((results / "per_class.csv").open()))
    as_text = [
        {k: "" if v is None else str(v) for k, v in row.items()} for row in content["tasks"]["bbox"]
    ]
    assert [{k: v for k, v in row.items() if k != "task"} for row in table] == as_text
    assert {row["task"] for row in table} == {"bbox"}
    assert content["json_file"] == str(folder / "truth.json") and content["images"] == 9
    assert content["iteration"] is None and content["max_detections"] == 100


@pytest.mark.parametrize(
    "name, folder",
    [("coco_2017_val", "coco_2017_val"), ("/data/a b/val", "data_a_b_val"), ("../..", "_"),
     ("https://x.org/val", "https_x.org_val")],
)  # fmt: skip
def test_a_data_set_named_by_a_path_has_a_folder_of_its_own(name, folder):
    assert folder_of("out", name) == Path("out", folder)


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch, caplog):
    def full(*args):
        raise SaveError("x: No space left on device")

    monkeypatch.setattr(per_class, "write_text", full)
    write_per_class(tmp_path, {}, ABOUT)
    assert "No space left" in caplog.text


@pytest.mark.parametrize("number, folder", [(1, ""), (2, "set")])
def test_several_data_sets_do_not_replace_each_others_predictions(
    number, folder, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        "d2_isonet.engine.trainer.build_evaluator", lambda *args: asked.append(args)
    )
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.DATASETS.TEST = str(tmp_path), ("set", "other")[:number]
    Trainer.build_evaluator(cfg, "set")
    assert asked == [("set", str(tmp_path / "inference" / folder).rstrip("/"), 100)]
