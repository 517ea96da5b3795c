"""COCO's measures of boxes and masks by hotcoco: pycocotools' numbers in a fraction of its time."""

import contextlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from detectron2.evaluation import COCOEvaluator

from d2_isonet.checkpoint.files import write_checkpoint
from d2_isonet.utils.files import tolerate, write_text
from d2_isonet.utils.messages import UserError

from .coco_measures import REGIONS, coco_measures, import_hotcoco, measures_of_nothing
from .coco_truth import put_right
from .per_class import current_iteration, detection_measures, folder_of, write_per_class

logger = logging.getLogger(__name__)


class FastCOCOEvaluator(COCOEvaluator):
    """detectron2's COCOEvaluator with the same results and files; hotcoco matches and accumulates.

    pycocotools evaluates what hotcoco refuses: keypoints and scores that are NaN; and everything if
    hotcoco is not installed. The annotations are `put_right` first. `evaluate` raises UserError if
    the class or image of a detection is not in the data set.

    Args:
        detections_per_image: most detections of an image that the model returns, -1 for all. COCO's
            limit of 100 for an image and a class is raised to it.
    """

    _output_dir: str | None

    def __init__(self, dataset_name: str, *args, detections_per_image: int = 100, **kwargs):
        if detections_per_image > 100:  # with None, detectron2 prints COCO's own lines
            kwargs.setdefault("max_dets_per_image", detections_per_image)
        super().__init__(dataset_name, *args, **kwargs)
        put_right(self._coco_api, self._metadata.json_file)
        self._detections_per_image = detections_per_image
        self._hotcoco = import_hotcoco()
        self._predicts_masks = False
        self._per_class: dict[str, list[dict]] = {}
        self._num_detections: Counter = Counter()  # by class
        self._folder: str | None = None  # as _output_dir, detectron2 would write there

    def evaluate(self, img_ids: list | None = None) -> dict:
        """detectron2's results; a file that cannot be written is only a warning."""
        self._folder, self._output_dir = self._output_dir, None
        try:
            return super().evaluate(img_ids)
        finally:
            self._output_dir = self._folder

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        instances = [output["instances"] for output in outputs if "instances" in output]
        self._predicts_masks |= any(found.has("pred_masks") for found in instances)
        super().process(inputs, outputs)

    def _tasks_from_predictions(self, predictions: list[dict]) -> list[str]:
        # results without detections do not show that the model predicts masks
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
        if coco_eval is not None:
            contiguous_ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
            classes = {}
            for category_id in sorted(set(self._coco_api.getCatIds())):
                number = contiguous_ids[category_id] if contiguous_ids else category_id
                is_named = class_names and contiguous_ids
                own = class_names[number] if is_named else self._coco_api.cats[category_id]["name"]
                classes[category_id] = (own, self._num_detections[number])
            self._per_class[iou_type] = detection_measures(coco_eval, classes)
        return super()._derive_coco_results(coco_eval, iou_type, class_names)

    def _eval_predictions(self, predictions: list[dict], img_ids: list | None = None) -> None:
        results = list(chain.from_iterable(prediction["instances"] for prediction in predictions))
        self._num_detections = Counter(result["category_id"] for result in results)
        self._per_class = {}
        if self._detections_per_image < 0:
            most = max(len(prediction["instances"]) for prediction in predictions)
            self._max_dets_per_image = [1, 10, max(100, most)]
        self._evaluate_results(predictions, results, img_ids)
        self._log_images_at_the_limit(predictions)
        if self._folder and self._per_class:
            folder = folder_of(self._folder, self._metadata.name)
            # an evaluation of several data sets already has a folder for each
            folder = folder.parent if folder.name == folder.parent.name else folder
            write_per_class(folder, self._per_class, self._about(img_ids))

    def _log_images_at_the_limit(self, predictions: list[dict]) -> None:
        limit = self._detections_per_image
        number = sum(len(x["instances"]) >= limit for x in predictions) if limit > 0 else 0
        self._logger.log(
            logging.WARNING if number else logging.INFO,
            f"{number} of {len(predictions)} images are at the limit of {limit} detections "
            "(TEST.DETECTIONS_PER_IMAGE)",
        )

    def _about(self, img_ids: list | None) -> dict:
        metadata, image_root = self._metadata, self._metadata.get("image_root")
        return {
            "dataset": metadata.name,
            "json_file": os.path.abspath(metadata.json_file),
            "image_root": os.path.abspath(image_root) if image_root else "",
            "images": len(self._coco_api.imgs if img_ids is None else img_ids),
            "iteration": current_iteration(),
            "max_detections": max(self._max_dets_per_image),
        }

    def _evaluate_results(self, predictions: list, found: list, img_ids: list | None) -> None:
        tasks = self._tasks or self._tasks_from_predictions(found)
        results = self._with_categories_of_dataset(found)
        if self._folder:
            if "proposals" not in predictions[0]:
                self._save_predictions(predictions)
            with self._file("coco_instances_results.json") as file:
                write_text(file, json.dumps(results))
        if self._hotcoco is None or not self._is_for_hotcoco(found, tasks):
            super()._eval_predictions(predictions, img_ids=img_ids)
            return
        for task in sorted(tasks):
            self._logger.info(f"Evaluating {task} of {len(results)} detections with hotcoco")
            measures = coco_measures(
                self._hotcoco, self._coco_api, results, task, self._max_dets_per_image, img_ids
            )
            self._results[task] = self._derive_coco_results(
                measures, task, class_names=self._metadata.get("thing_classes")
            )

    @contextlib.contextmanager
    def _file(self, name: str) -> Iterator[str]:
        """The path of a file in the output folder; a failed write is only a warning."""
        file = os.path.join(self._folder or "", name)
        with tolerate(file, "The evaluation continues without it"):
            os.makedirs(os.path.dirname(file), exist_ok=True)
            yield file

    def _save_predictions(self, predictions: list[dict]) -> None:
        with self._file("instances_predictions.pth") as file:
            write_checkpoint(file, predictions)

    def _eval_box_proposals(self, predictions: list[dict]) -> None:
        if self._folder:
            self._save_predictions(predictions)
            self._output_dir = self._folder
            with self._file("box_proposals.pkl"):
                return super()._eval_box_proposals(predictions)
            self._output_dir = None
        super()._eval_box_proposals(predictions)

    def _is_for_hotcoco(self, results: list[dict], tasks: Iterable[str]) -> bool:
        return (
            self._do_evaluation
            and len(results) > 0
            and REGIONS.keys() >= set(tasks)
            and not any(result["score"] != result["score"] for result in results)  # NaN
        )

    def _with_categories_of_dataset(self, results: list[dict]) -> list[dict]:
        contiguous_ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if contiguous_ids is None:
            return results
        dataset_ids = {contiguous: category for category, contiguous in contiguous_ids.items()}
        unknown = {result["category_id"] for result in results} - dataset_ids.keys()
        if unknown:
            raise UserError(
                f"the model predicts class {max(unknown)}, but {self._metadata.name} has only "
                f"{len(dataset_ids)} classes",
                "set NUM_CLASSES of the head to that number",
            )
        return [{**r, "category_id": dataset_ids[r["category_id"]]} for r in results]
