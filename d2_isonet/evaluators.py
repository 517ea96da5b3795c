"""What a data set is evaluated by: COCO's measures, and those of segmentation where it has them."""

import importlib.util
import logging
import os

from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
)

from d2_isonet.data.coco_json import fill_in

from .coco_evaluation import FastCOCOEvaluator
from .coco_truth import make_coco_json
from .forgiving_evaluator import ForgivingEvaluator

logger = logging.getLogger(__name__)


def coco_evaluator(dataset_name: str, output_dir: str) -> FastCOCOEvaluator:
    """A COCOEvaluator with pycocotools' numbers; it needs no compiled detectron2.

    What annotation tools leave out and pycocotools needs is filled in, see `fill_in`. A data set
    of Python's is converted anew where it has changed.
    """
    make_coco_json(dataset_name, output_dir)
    evaluator = FastCOCOEvaluator(dataset_name, output_dir=output_dir, use_fast_impl=False)
    annotations = evaluator._coco_api.dataset.get("annotations", [])
    for annotation in annotations:
        fill_in(annotation)
    if not annotations:
        logger.warning(
            f"Data set {dataset_name!r} has no ground truth, {evaluator._metadata.json_file} no "
            f"annotations: predictions are written to {output_dir}, AP is nan or left out"
        )
    return evaluator


_SEMANTIC, _PANOPTIC = "sem_seg", "coco_panoptic_seg"


def build_evaluator(dataset_name: str, output_dir: str) -> DatasetEvaluator:
    """By the evaluator_type of the set's metadata: semantic, panoptic (instances, semantic and,
    where the package panopticapi is installed, PQ), or else instances.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    evaluators: list[DatasetEvaluator] = []
    if kind in (_SEMANTIC, _PANOPTIC):
        os.makedirs(output_dir, exist_ok=True)
        semantic = SemSegEvaluator(dataset_name, output_dir=output_dir)
        evaluators.append(ForgivingEvaluator(semantic))
    if kind != _SEMANTIC:
        evaluators.append(coco_evaluator(dataset_name, output_dir))
    if kind == _PANOPTIC:
        evaluators += _panoptic_quality(dataset_name, output_dir)
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def _panoptic_quality(dataset_name: str, output_dir: str) -> list[DatasetEvaluator]:
    if importlib.util.find_spec("panopticapi") is None:
        logger.warning(
            f"{dataset_name!r}: PQ is left out, which needs the package panopticapi "
            "(github.com/cocodataset/panopticapi); instances and semantics are evaluated"
        )
        return []
    return [ForgivingEvaluator(COCOPanopticEvaluator(dataset_name, output_dir))]
