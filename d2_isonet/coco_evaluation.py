"""COCO's measures of boxes and masks by hotcoco: pycocotools' numbers in a fraction of its time."""

import functools
import json
import logging
import os
from collections.abc import Iterable
from itertools import chain
from types import ModuleType

from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import COCOevalMaxDets
from detectron2.utils.file_io import PathManager
from pycocotools.coco import COCO

from .no_detections import measures_of_nothing

logger = logging.getLogger(__name__)

REGIONS = {"bbox": "bbox", "segm": "segmentation"}  # task: what of an annotation it compares


@functools.cache
def import_hotcoco() -> ModuleType | None:
    """hotcoco, or None after one warning where it cannot be imported."""
    try:
        import hotcoco  # here, so that importing d2_isonet does not wait for it
    except ImportError as error:
        logger.warning(
            f"COCO evaluation by pycocotools ({error}): the same numbers, but it takes about ten "
            "times as long; pip install hotcoco"
        )
        return None
    return hotcoco


class FastCOCOEvaluator(COCOEvaluator):
    """detectron2's COCOEvaluator with the same results and files; hotcoco matches and accumulates.

    pycocotools still does what hotcoco refuses or counts differently: keypoints, scores that are
    NaN, annotations with the id 0 or sharing one; and everything where hotcoco is not installed.

    Raises (from evaluate):
        ValueError: a detection is of a class or of an image that the data set does not have.
    """

    def __init__(self, dataset_name: str, *args, **kwargs):
        super().__init__(dataset_name, *args, **kwargs)
        self._hotcoco = import_hotcoco()
        self._predicts_masks = False
        if 0 in self._coco_api.anns:
            logger.warning(
                f"{self._metadata.json_file}: an annotation has the id 0, and COCO's code takes a "
                "match with it for none: number annotations from 1. Evaluation by pycocotools"
            )

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        instances = [output["instances"] for output in outputs if "instances" in output]
        self._predicts_masks |= any(found.has("pred_masks") for found in instances)
        super().process(inputs, outputs)

    def _tasks_from_predictions(self, predictions: list[dict]) -> list[str]:
        # without a detection the results do not tell that the model has masks
        segm = {"segm"} if self._predicts_masks else set()
        return sorted({*super()._tasks_from_predictions(predictions), *segm})

    def _derive_coco_results(self, coco_eval, iou_type: str, class_names=None) -> dict:
        if coco_eval is None and iou_type in REGIONS:
            self._logger.warning(
                f"The model detects nothing in {len(self._coco_api.imgs)} images: AP ({iou_type}) "
                "is 0. It may be untrained, diverged, of other weights, or its scores below "
                "MODEL.ROI_HEADS.SCORE_THRESH_TEST"
            )
            coco_eval = measures_of_nothing(self._coco_api, iou_type, self._max_dets_per_image)
        return super()._derive_coco_results(coco_eval, iou_type, class_names)

    def _eval_predictions(self, predictions: list[dict], img_ids: list | None = None) -> None:
        results = list(chain.from_iterable(prediction["instances"] for prediction in predictions))
        tasks = self._tasks or self._tasks_from_predictions(results)
        if self._hotcoco is None or not self._is_for_hotcoco(results, tasks):
            super()._eval_predictions(predictions, img_ids=img_ids)
            return
        results = self._with_categories_of_dataset(results)
        if self._output_dir:
            file = os.path.join(self._output_dir, "coco_instances_results.json")
            self._logger.info(f"Saving results to {file}")
            with PathManager.open(file, "w") as opened:
                opened.write(json.dumps(results))
        for task in sorted(tasks):
            self._logger.info(f"Evaluating {task} of {len(results)} detections with hotcoco")
            measures = coco_measures(
                self._hotcoco, self._coco_api, results, task, self._max_dets_per_image, img_ids
            )
            self._results[task] = self._derive_coco_results(
                measures, task, class_names=self._metadata.get("thing_classes")
            )

    def _is_for_hotcoco(self, results: list[dict], tasks: Iterable[str]) -> bool:
        return (
            self._do_evaluation
            and len(results) > 0
            and REGIONS.keys() >= set(tasks)
            and 0 not in self._coco_api.anns
            and len(self._coco_api.anns) == len(self._coco_api.dataset["annotations"])
            and not any(result["score"] != result["score"] for result in results)  # NaN
        )

    def _with_categories_of_dataset(self, results: list[dict]) -> list[dict]:
        contiguous_ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if contiguous_ids is None:
            return results
        dataset_ids = {contiguous: category for category, contiguous in contiguous_ids.items()}
        unknown = {result["category_id"] for result in results} - dataset_ids.keys()
        if unknown:
            raise ValueError(
                f"the model predicts class {max(unknown)}, but {self._metadata.name} has only "
                f"{len(dataset_ids)} classes: set the head's NUM_CLASSES to that"
            )
        return [{**r, "category_id": dataset_ids[r["category_id"]]} for r in results]


def coco_measures(
    hotcoco: ModuleType,
    truth: COCO,
    results: list[dict],
    task: str,
    max_dets: list[int],
    img_ids: list | None = None,
) -> COCOevalMaxDets:
    """The summarized evaluation, as pycocotools leaves it: `stats` (12,) and `eval`.

    Args:
        truth: its annotations have iscrowd, area and ids that differ and are not 0.
        results: detections in COCO's format; `truth` may lack their category, not their image.
        task: "bbox" or "segm"; the area of a detection is that of its box or of its mask.
        max_dets: the three limits of detections an image and category.
        img_ids: of the images that count; None for all.

    Raises:
        ValueError: a detection is of an image that `truth` does not have, or its score is NaN.
    """
    summary = COCOevalMaxDets(truth, iouType=task)
    params = summary.params
    params.maxDets = sorted(max_dets)
    params.imgIds = sorted(set(params.imgIds if img_ids is None else img_ids))
    params.catIds = sorted(set(params.catIds))

    # hotcoco takes no ids but integers from 0; in sorted order, ties come out as in pycocotools
    images = {image_id: number for number, image_id in enumerate(params.imgIds, 1)}
    categories = {category_id: number for number, category_id in enumerate(params.catIds, 1)}
    ours = hotcoco.COCO(_truth(truth, images, categories, task))
    found = ours.load_res(_detections(truth, results, images, categories, REGIONS[task]))
    evaluation = hotcoco.COCOeval(ours, found, task)
    for name in ("iouThrs", "recThrs", "areaRng", "maxDets"):
        setattr(evaluation.params, name, list(getattr(params, name)))
    evaluation.evaluate()
    evaluation.accumulate()
    summary.eval = {**evaluation.eval, "params": params}
    summary.summarize()
    return summary


def _truth(truth: COCO, images: dict, categories: dict, task: str) -> dict:
    """The data set with the numbers that `images` and `categories` give to its ids."""
    present = [(truth.imgs[i], number) for i, number in images.items() if i in truth.imgs]
    return {
        "images": [_image(image, number, task) for image, number in present],
        "annotations": _annotations(truth, images, categories, REGIONS[task]),
        "categories": [{"id": number, "name": str(number)} for number in categories.values()],
    }


def _image(image: dict, number: int, task: str) -> dict:
    if task == "bbox":
        return {"id": number}
    return {"id": number, "height": image["height"], "width": image["width"]}


def _annotations(truth: COCO, images: dict, categories: dict, region: str) -> list[dict]:
    return [
        {
            "id": number,
            "image_id": images[annotation["image_id"]],
            "category_id": categories[annotation["category_id"]],
            "iscrowd": int(bool(annotation["iscrowd"])),
            "area": annotation["area"],
            region: annotation[region],
        }
        for number, annotation in enumerate(truth.dataset["annotations"], 1)
        if annotation["image_id"] in images and annotation["category_id"] in categories
    ]


def _detections(
    truth: COCO, results: list[dict], images: dict, categories: dict, region: str
) -> list[dict]:
    unknown = {result["image_id"] for result in results} - truth.imgs.keys()
    if unknown:
        raise ValueError(
            f"{len(unknown)} images with detections are not in the data set, such as id "
            f"{next(iter(unknown))!r}: evaluate on the data set that was predicted"
        )
    return [
        {
            "image_id": images[result["image_id"]],
            "category_id": categories[result["category_id"]],
            "score": result["score"],
            region: result[region],
        }
        for result in results
        if result["image_id"] in images and result["category_id"] in categories
    ]
