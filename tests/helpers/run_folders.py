"""Output folders as the engine leaves them, written in no time: for tests of the report."""

import json
from pathlib import Path

import torch
from detectron2.config import get_cfg

from d2_isonet.config.defaults import add_isonet_config
from d2_isonet.evaluation.classification import ImageNetEvaluator
from d2_isonet.evaluation.per_class import write_per_class

EVIL = "<img src=x onerror=alert(1)>$x_"  # a class name, or a part of a path


def step(iteration: int, **values: float) -> dict:
    base = {"iteration": iteration, "lr": 0.01, "time": 0.5, "data_time": 0.01}
    return {**base, "total_loss": 5 / (iteration + 1), "loss_cls": 1.0, **values}


def write_config(folder: Path, **changes) -> None:
    """config.yaml with the defaults and some KEY=VALUE, the dots written as __."""
    cfg = get_cfg()
    add_isonet_config(cfg)
    pairs = {"OUTPUT_DIR": str(folder), **{k.replace("__", "."): v for k, v in changes.items()}}
    cfg.merge_from_list([x for pair in pairs.items() for x in pair])
    (folder / "config.yaml").write_text(cfg.dump())


def write_metrics(folder: Path, records: list[dict]) -> Path:
    file = folder / "metrics.json"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def detection_run(folder: Path, truth: Path, images: Path, shift: float = 2.0) -> Path:
    """A finished training whose predictions are the truth, moved; one of each class is missing."""
    from d2_isonet.reporting.runs.detection import analyse, read_truth

    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, SOLVER__MAX_ITER=40, DATASETS__TEST=("own_val",))
    write_metrics(folder, [
        step(19, loss_ortho=3.0, **{"ortho/res2": 1.0}),
        step(39, loss_ortho=2.0, **{"ortho/res2": 0.5, "bbox/AP": 10.0, "bbox/AP50": 20.0}),
    ])  # fmt: skip
    content = json.loads(truth.read_text())
    found = []
    for annotation in content["annotations"][1:]:
        x, y, w, h = annotation["bbox"]
        box, score = [x + shift, y, w, h], round(0.3 + 0.06 * (annotation["id"] % 10), 2)
        found.append({k: annotation[k] for k in ("image_id", "category_id", "segmentation")})
        found[-1] |= {"bbox": box, "score": score}
        found[-1]["segmentation"] = _rle(annotation["segmentation"], (60, 80))
    inference = folder / "inference"
    inference.mkdir(exist_ok=True)
    (inference / "coco_instances_results.json").write_text(json.dumps(found))
    rows = {t: analyse(read_truth(truth), found, t).rows for t in ("bbox", "segm")}
    about = {"dataset": "own_val", "json_file": str(truth), "image_root": str(images)}
    write_per_class(inference / "own_val", rows, about)
    return folder


def _rle(polygons: list, size: tuple[int, int]) -> dict:
    from pycocotools import mask

    rle = mask.merge(mask.frPyObjects(polygons, *size))
    return {"size": list(size), "counts": rle["counts"].decode()}


def classification_run(folder: Path, images: list[Path], names: list[str]) -> Path:
    """A finished pretraining; the classifier takes every image for the first class but the last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, MODEL__META_ARCHITECTURE="ImageClassifier", SOLVER__MAX_ITER=20)
    results = {"classification/top1": 50.0, "classification/top5": 100.0}
    write_metrics(folder, [step(19), {"iteration": 20, **results}])
    evaluator = ImageNetEvaluator(len(names), str(folder / "inference"), "/data/val", names)
    for number, file in enumerate(images):
        logits = torch.zeros(len(names))
        logits[-1 if number == len(images) - 1 else 0] = 1 + number
        label = number % len(names)
        evaluator.process([{"file_name": str(file), "label": label}], [{"logits": logits}])
    evaluator.evaluate()
    return folder
