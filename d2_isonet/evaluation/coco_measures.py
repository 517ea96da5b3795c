"""COCO's measures by hotcoco, in pycocotools' arrays and with its ids."""

import functools
import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from detectron2.evaluation.coco_evaluation import COCOevalMaxDets
from pycocotools.coco import COCO
from pycocotools.cocoeval import Params

from d2_isonet.utils.messages import UserError

logger = logging.getLogger(__name__)
REGIONS = {"bbox": "bbox", "segm": "segmentation"}  # task: the key of an annotation it compares


def coco_measures(
    hotcoco: ModuleType,
    truth: COCO,
    results: list[dict],
    task: str,
    max_dets: list[int],
    img_ids: list | None = None,
) -> COCOevalMaxDets:
    """The summarized evaluation with pycocotools' attributes `stats` (12,) and `eval`.

    Args:
        truth: its annotations have iscrowd, area, and unique ids other than 0.
        results: detections in COCO's format; `truth` must contain their images, but not their
            categories.
        task: "bbox" or "segm"; the area of a detection is that of its box or of its mask.
        max_dets: the three limits of detections per image and category.
        img_ids: of the images that count; None for all.

    Raises UserError if the image of a detection is not in `truth`, or a score is NaN.
    """
    params = params_of(truth, task, max_dets, img_ids)
    return summarized(evaluated(hotcoco, truth, results, task, params), truth, task, params)


def params_of(truth: COCO, task: str, max_dets: list[int], img_ids: list | None = None) -> Params:
    """The parameters of an evaluation for pycocotools; arguments as in `coco_measures`."""
    params = COCOevalMaxDets(truth, iouType=task).params
    params.maxDets = sorted(max_dets)
    params.imgIds = sorted(set(params.imgIds if img_ids is None else img_ids))
    params.catIds = sorted(set(params.catIds))
    return params


def summarized(evaluation: Any, truth: COCO, task: str, params: Params) -> COCOevalMaxDets:
    """The result of `evaluated`, accumulated, with pycocotools' attributes `stats` and `eval`."""
    evaluation.accumulate()
    summary = COCOevalMaxDets(truth, iouType=task)
    summary.params = params
    summary.eval = {**evaluation.eval, "params": params}
    summary.summarize()
    return summary


def evaluated(hotcoco: ModuleType, truth: COCO, results: list, task: str, params: Params) -> Any:
    """hotcoco's COCOeval after evaluate(), with numbers from 1 instead of the ids.

    Category number k is params.catIds[k - 1], image number i is params.imgIds[i - 1], and
    detection number n is the n-th of the results that have one of these images and categories.

    In pycocotools' Params, imgIds and catIds are sorted and unique. Raises UserError if the image
    of a detection is not in `truth`, or a score is NaN.
    """
    unknown = {result["image_id"] for result in results} - truth.imgs.keys()
    if unknown:
        n, example = len(unknown), next(iter(unknown))
        what = f"{n} images with detections are not in the data set, such as id {example!r}"
        raise UserError(what, "evaluate on the data set that was predicted")
    # hotcoco accepts only integers from 0 as ids; in sorted order, ties are as in pycocotools
    images = {image_id: number for number, image_id in enumerate(params.imgIds, 1)}
    categories = {category_id: number for number, category_id in enumerate(params.catIds, 1)}
    annotations = [
        {**annotation, "id": number, "iscrowd": int(bool(annotation["iscrowd"]))}
        for number, annotation in enumerate(truth.dataset["annotations"], 1)
    ]
    keys, sizes = ("id", "iscrowd", "area"), () if task == "bbox" else ("height", "width")
    present = {number: truth.imgs[i] for i, number in images.items() if i in truth.imgs}
    ours = hotcoco.COCO({
        "images": [{"id": n, **{k: image[k] for k in sizes}} for n, image in present.items()],
        "annotations": _renumbered(annotations, (*keys, REGIONS[task]), images, categories),
        "categories": [{"id": number, "name": str(number)} for number in categories.values()],
    })  # fmt: skip
    found = _renumbered(results, ("score", REGIONS[task]), images, categories)
    evaluation = hotcoco.COCOeval(ours, ours.load_res(found), task)
    for name in ("iouThrs", "recThrs", "areaRng", "maxDets"):
        setattr(evaluation.params, name, list(getattr(params, name)))
    evaluation.evaluate()
    return evaluation


def _renumbered(items: list, keys: Sequence[str], images: dict, categories: dict) -> list[dict]:
    """`keys` of the items of these images and categories, and numbers instead of their ids."""
    return [
        {
            "image_id": images[item["image_id"]],
            "category_id": categories[item["category_id"]],
            **{key: item[key] for key in keys},
        }
        for item in items
        if item["image_id"] in images and item["category_id"] in categories
    ]


def measures_of_nothing(truth: COCO, task: str, max_dets: list[int]) -> COCOevalMaxDets:
    """`coco_measures` without detections, as COCO.loadRes refuses an empty list."""
    nothing = COCO()
    nothing.dataset = {**truth.dataset, "annotations": []}
    nothing.createIndex()
    summary = COCOevalMaxDets(truth, nothing, task)
    summary.params.maxDets = sorted(max_dets)
    summary.evaluate()
    summary.accumulate()
    summary.summarize()
    return summary


@functools.cache
def import_hotcoco() -> ModuleType | None:
    """hotcoco, or None and one warning if it cannot be imported."""
    try:
        import hotcoco  # here, so that d2_isonet is imported quickly
    except ImportError as error:
        logger.warning(
            f"COCO evaluation by pycocotools ({error}): the same numbers, but it takes about ten "
            "times as long; pip install hotcoco"
        )
        return None
    return hotcoco
