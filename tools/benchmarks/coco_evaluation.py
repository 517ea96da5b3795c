"""COCO evaluation of random detections: FastCOCOEvaluator against detectron2's with pycocotools."""

import argparse
import contextlib
import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import pycocotools.mask
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator

from d2_isonet.evaluation.coco_evaluation import FastCOCOEvaluator
from d2_isonet.evaluation.coco_measures import import_hotcoco

from .measure import Comparison, seconds_of

_LIMIT = 1 / 7
_BOXES, _MASKS = ("bbox",), ("bbox", "segm")  # of Faster and of Mask R-CNN
_PER_IMAGE = 100  # detections; Mask R-CNN keeps as many


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """COCO evaluation of random detections: FastCOCOEvaluator against detectron2's evaluator.

    Boxes of 1,000 and 5,000 images, boxes and masks of 300, with 100 detections per image. The time
    is that of evaluator.evaluate(): load the detections, compute the measures and, unless the row
    says otherwise, write detectron2's two files, which is the same work on both sides. All 12
    numbers of COCO, the precisions and the recalls must be identical to the last bit.

    Raises:
        RuntimeError: hotcoco is missing, or a number differs from pycocotools'.
    """
    if import_hotcoco() is None:
        raise RuntimeError("hotcoco is not installed: there is nothing to compare; pip install it")
    if options.quick:
        yield _compare(_BOXES, 8, 1)
        yield _compare(_MASKS, 4, 1)
        return
    for tasks, images in ((_BOXES, 1000), (_MASKS, 300)):
        yield _compare(tasks, images, options.repetitions, files=False)
        yield _compare(tasks, images, options.repetitions)
    yield _compare(_BOXES, 5000, min(options.repetitions, 3))  # pycocotools takes minutes


def _compare(
    tasks: tuple[str, ...], images: int, repetitions: int, files: bool = True
) -> Comparison:
    truth = random_truth(images, range(1, 81))
    predictions = pickle.dumps(random_detections(truth, _PER_IMAGE, masks=tasks == _MASKS))
    seconds = [], []
    with TemporaryDirectory() as folder:
        file, name = Path(folder, "truth.json"), f"benchmark_{Path(folder).name}"
        file.write_text(json.dumps(truth))
        MetadataCatalog.get(name).set(json_file=str(file))
        output = str(Path(folder, "output")) if files else None
        for _ in range(repetitions):
            measures = []
            for build, taken in zip((FastCOCOEvaluator, COCOEvaluator), seconds, strict=True):
                evaluator = build(name, tasks, output_dir=output, use_fast_impl=False)
                evaluator._predictions = pickle.loads(predictions)
                taken.append(_evaluate(evaluator, measures))
            for ours, peer in zip(*measures, strict=True):
                _check_identical(ours, peer)
    precisions = ", ".join(f"{100 * ours.stats[0]:.2f}" for ours in measures[0])
    return Comparison(
        f"{'boxes and masks' if tasks == _MASKS else 'boxes'}, {images:,} images, "
        f"{images * _PER_IMAGE:,} detections{'' if files else ', no files'}",
        *seconds,
        limit=_LIMIT if images >= 300 else None,  # a fixed cost decides on the quick sizes
        note=f"12 numbers identical, AP {precisions}",
    )


def _evaluate(evaluator: COCOEvaluator, measures: list[list]) -> float:
    """The seconds of evaluator.evaluate(); add its measures of each task to the list."""
    derive = evaluator._derive_coco_results
    with (
        mock.patch.object(evaluator, "_derive_coco_results", wraps=derive) as derived,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        seconds = seconds_of(evaluator.evaluate)
    measures.append([call.args[0] for call in derived.call_args_list])
    return seconds


def _check_identical(ours, peer) -> None:
    parts = {"stats": (ours.stats, peer.stats)}
    parts |= {name: (ours.eval[name], peer.eval[name]) for name in ("precision", "recall")}
    for name, (left, right) in parts.items():
        if not np.array_equal(left, right):
            most = np.abs(left - right).max()
            raise RuntimeError(f"{name} of hotcoco and pycocotools differ by up to {most}")


def random_truth(
    num_images: int, categories, seed: int = 0, size: tuple[int, int] = (480, 640)
) -> dict:
    """A data set in COCO's format: about 7 objects per image, none in every fifth; 10 % are crowds.

    Objects are polygons and crowds RLEs, with areas from 1 pixel to more than 96^2. The last
    category has no object, and the ids of images have gaps and no order.
    """
    generator = np.random.RandomState(seed)
    height, width = size
    ids = [3 * int(number) + 1 for number in generator.permutation(num_images)]
    annotations = []
    for image_id in [image_id for number, image_id in enumerate(ids) if number % 5]:
        for box in _random_boxes(generator, generator.randint(1, 16), size):
            crowd = int(generator.rand() < 0.1)
            polygon = _polygon(box, seed=len(annotations))
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": categories[generator.randint(len(categories) - 1)],
                "iscrowd": crowd,
                "bbox": box,
                "area": box[2] * box[3] * generator.choice([0.5, 1.0]),
                "segmentation": _rle(polygon, size) if crowd else polygon,
            }
            annotations.append(annotation)
    images = [{"id": image_id, "height": height, "width": width} for image_id in ids]
    names = [{"id": category, "name": str(category)} for category in categories]
    return {"info": {}, "images": images, "annotations": annotations, "categories": names}


def random_detections(truth: dict, per_image: int, masks: bool, seed: int = 1) -> list[dict]:
    """Predictions in detectron2's format, 70 % of them near an object, with many equal scores."""
    generator = np.random.RandomState(seed)
    objects = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    categories = [category["id"] for category in truth["categories"]]
    predictions = []
    for image in truth["images"]:
        size = (image["height"], image["width"])
        near, found = objects[image["id"]], []
        for box in _random_boxes(generator, per_image, size):
            category = categories[generator.randint(len(categories))]
            shape = generator.randint(10**6)
            if near and generator.rand() < 0.7:
                chosen = near[generator.randint(len(near))]
                shaken = np.array(chosen["bbox"]) * generator.normal(1, 0.05, 4)
                box, category = shaken.tolist(), chosen["category_id"]
                shape = chosen["id"] - 1
            score = round(float(generator.rand()), 2)
            result = {"image_id": image["id"], "category_id": category, "bbox": box, "score": score}
            if masks:
                result["segmentation"] = _rle(_polygon(box, shape), size)
            found.append(result)
        predictions.append({"image_id": image["id"], "instances": found})
    return predictions


def _random_boxes(generator, number: int, size: tuple[int, int]) -> list[list[float]]:
    """Boxes (x, y, width, height), some of them partly outside the image."""
    corners = generator.uniform(-0.05, 0.9, (number, 2)) * size[::-1]
    sizes = np.exp(generator.uniform(0, np.log(0.7 * min(size)), (number, 2)))
    return np.round(np.hstack([corners, sizes]), 2).tolist()


def _polygon(box: list[float], seed: int) -> list[list[float]]:
    """Corners on the ellipse inside the box; the same seed gives the same shape."""
    x, y, width, height = box
    generator = np.random.RandomState(seed)
    angles = np.sort(generator.uniform(0, 2 * np.pi, generator.randint(4, 12)))
    corners = [x + width / 2 * (1 + np.cos(angles)), y + height / 2 * (1 + np.sin(angles))]
    return [np.stack(corners, axis=1).ravel().tolist()]


def _rle(polygon: list[list[float]], size: tuple[int, int]) -> dict:
    (encoded,) = pycocotools.mask.frPyObjects(polygon, *size)
    return {"size": list(size), "counts": encoded["counts"].decode()}
