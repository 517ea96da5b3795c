"""The COCO json that an evaluation compares with, of data sets that have none of their own."""

import hashlib
import importlib.util
import logging
import os
import pickle

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.evaluation import (
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
)

from d2_isonet.data.coco_json import fill_in
from d2_isonet.utils.files import disk_error, is_full_disk

from .coco_evaluation import FastCOCOEvaluator, in_folder_or_elsewhere

logger = logging.getLogger(__name__)


def make_coco_json(dataset_name: str, output_dir: str) -> None:
    """Convert a data set of Python's to a COCO json, anew where it has changed; set json_file.

    detectron2 would take the json that an earlier run left in `output_dir`, whatever the set is by
    now. The checksum in the name is of the dicts and the class names.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("json_file") and not metadata.get("json_file_is_made"):
        return
    content = pickle.dumps((DatasetCatalog.get(dataset_name), metadata.get("thing_classes")))
    checksum = hashlib.blake2b(content, digest_size=8).hexdigest()

    def convert(folder: str) -> str:
        path = os.path.join(folder, f"{dataset_name}_{checksum}.json")
        convert_to_coco_json(dataset_name, path)
        return path

    path = in_folder_or_elsewhere(output_dir, convert)
    # Not set(), which refuses a new value.
    vars(metadata).update(json_file=path, json_file_is_made=True)


class ForgivingEvaluator(DatasetEvaluator):
    """Another DatasetEvaluator, which writes files that its result may depend on.

    They are the main process's, after all have told it what they found.
    """

    def __init__(self, evaluator: DatasetEvaluator):
        self.evaluator = evaluator

    def reset(self) -> None:
        self.evaluator.reset()

    def process(self, inputs, outputs) -> None:
        self.evaluator.process(inputs, outputs)

    def evaluate(self) -> dict | None:
        try:
            return self.evaluator.evaluate()
        except Exception as error:  # torch's writer wraps what the system said
            cause = disk_error(error)
            if cause is None or not is_full_disk(cause):
                raise
            logger.warning(
                f"{type(self.evaluator).__name__} could not write its files ({cause.strerror}) and "
                "has no result this time"
            )
            return {}


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
