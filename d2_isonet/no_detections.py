"""COCO's measures of a model that detects nothing: 0 where there was something to detect."""

from detectron2.evaluation.coco_evaluation import COCOevalMaxDets
from pycocotools.coco import COCO


def measures_of_nothing(truth: COCO, task: str, max_dets: list[int]) -> COCOevalMaxDets:
    """The summarized evaluation of no detection at all; COCO.loadRes refuses an empty list.

    Args:
        task: "bbox" or "segm".
        max_dets: the three limits of detections an image and category.
    """
    nothing = COCO()
    nothing.dataset = {**truth.dataset, "annotations": []}
    nothing.createIndex()
    summary = COCOevalMaxDets(truth, nothing, task)
    summary.params.maxDets = sorted(max_dets)
    summary.evaluate()
    summary.accumulate()
    summary.summarize()
    return summary
