"""Which evaluator a data set gets: COCO, semantic or panoptic."""

import contextlib
import hashlib
import importlib.util
import logging
import os
import pickle
import tempfile
from collections.abc import Iterator

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.evaluation import (
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
)

from d2_isonet.data.coco_json import is_keypoints
from d2_isonet.utils.files import tolerate

from .coco_evaluation import FastCOCOEvaluator

logger = logging.getLogger(__name__)
_SEMANTIC, _PANOPTIC = "sem_seg", "coco_panoptic_seg"  # detectron2's evaluator_type


def build_evaluator(
    dataset_name: str, output_dir: str, detections_per_image: int = 100
) -> DatasetEvaluator:
    """The evaluator for the evaluator_type in the metadata of the data set.

    "sem_seg" is evaluated by SemSegEvaluator, "coco_panoptic_seg" by that, `coco_evaluator` and, if
    the package panopticapi is installed, PQ. Every other data set gets a `coco_evaluator`.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    evaluators: list[DatasetEvaluator] = []
    if kind in (_SEMANTIC, _PANOPTIC):
        os.makedirs(output_dir, exist_ok=True)
        semantic = SemSegEvaluator(dataset_name, output_dir=output_dir)
        evaluators.append(TolerantEvaluator(semantic))
    if kind != _SEMANTIC:
        evaluators.append(coco_evaluator(dataset_name, output_dir, detections_per_image))
    if kind == _PANOPTIC and importlib.util.find_spec("panopticapi") is None:
        logger.warning(
            f"{dataset_name!r}: PQ is left out, which needs the package panopticapi "
            "(github.com/cocodataset/panopticapi); instances and semantics are evaluated"
        )
    elif kind == _PANOPTIC:
        evaluators.append(TolerantEvaluator(COCOPanopticEvaluator(dataset_name, output_dir)))
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def coco_evaluator(
    dataset_name: str, output_dir: str, detections_per_image: int = 100
) -> FastCOCOEvaluator:
    """A COCOEvaluator with pycocotools' numbers, which needs no compiled detectron2.

    `make_coco_json` converts a data set without a COCO json.

    Args:
        detections_per_image: TEST.DETECTIONS_PER_IMAGE of the model.
    """
    make_coco_json(dataset_name, output_dir)
    evaluator = FastCOCOEvaluator(
        dataset_name,
        output_dir=output_dir,
        use_fast_impl=False,
        detections_per_image=detections_per_image,
    )
    if not evaluator._coco_api.dataset.get("annotations"):
        logger.warning(
            f"Data set {dataset_name!r} has no ground truth, {evaluator._metadata.json_file} no "
            f"annotations: predictions are written to {output_dir}, AP is nan or left out"
        )
    return evaluator


def make_coco_json(dataset_name: str, output_dir: str) -> None:
    """Write the COCO json of a data set that has none, and set its metadata's json_file.

    detectron2 would read the json of an earlier run in `output_dir`, even if the data set has
    changed since. Therefore the name contains a checksum of the dicts and the class names.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("json_file") and not metadata.get("json_file_is_made"):
        return
    content = pickle.dumps((DatasetCatalog.get(dataset_name), metadata.get("thing_classes")))
    checksum = hashlib.blake2b(content, digest_size=8).hexdigest()
    name, path = f"{dataset_name}_{checksum}.json", ""
    with _malformed_keypoints_left_out(dataset_name):
        instead = "The COCO json is written to the system's temporary folder instead"
        with tolerate(output_dir, instead):
            convert_to_coco_json(dataset_name, os.path.join(output_dir, name))
            path = os.path.join(output_dir, name)
        if not path:
            path = os.path.join(tempfile.mkdtemp(prefix="d2_isonet_"), name)
            convert_to_coco_json(dataset_name, path)
    # set() refuses to change a value
    vars(metadata).update(json_file=path, json_file_is_made=True)


@contextlib.contextmanager
def _malformed_keypoints_left_out(dataset_name: str) -> Iterator[None]:
    """Within it, the data set has no keypoints on which detectron2's conversion fails."""
    load = DatasetCatalog[dataset_name]

    def kept(annotation: dict) -> dict:
        keypoints = annotation.get("keypoints", [])
        bad = not is_keypoints(keypoints) and not isinstance(keypoints, np.ndarray)
        return {k: v for k, v in annotation.items() if k != "keypoints" or not bad}

    def loaded() -> list[dict]:
        return [{**d, "annotations": list(map(kept, d.get("annotations", [])))} for d in load()]

    DatasetCatalog[dataset_name] = loaded
    try:
        yield
    finally:
        DatasetCatalog[dataset_name] = load


class TolerantEvaluator(DatasetEvaluators):
    """An evaluator that has no result, and logs a warning, if a full disk stops its files.

    The main process writes them, after all processes have sent it what they found.
    """

    def __init__(self, evaluator: DatasetEvaluator):
        super().__init__([evaluator])
        self.evaluator = evaluator

    def evaluate(self) -> dict:
        file = f"A file of {type(self.evaluator).__name__}"
        with tolerate(file, "It has no result this time", only_full_disk=True):
            return super().evaluate()
        return {}
