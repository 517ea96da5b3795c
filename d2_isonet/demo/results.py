"""Detections in COCO's format: results.json, and images.json with the meaning of its ids."""

import json
from pathlib import Path

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances

from d2_isonet.data.categories import Categories
from d2_isonet.data.coco_json import read_annotations
from d2_isonet.utils.files import write_text

from .outputs import IMAGES, RESULTS


def results_of(found: Instances, image_id: int, categories: Categories) -> list[dict]:
    """COCO results of one image: image_id, category_id, bbox (x, y, w, h), score, segmentation.

    Args:
        found: on the CPU, with boxes and masks in pixels of the original image.
    """
    results = instances_to_coco_json(found, image_id)
    for result in results:
        result["category_id"] = categories.ids[result["category_id"]]
    return results


def images_json(images: list[dict], categories: Categories) -> dict:
    """A COCO file without annotations, which pycocotools needs to read the results."""
    named = zip(categories.ids, categories.names, strict=True)
    return {
        "info": {"description": "images and categories of the results beside this file"},
        "images": images,
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in named],
    }


class CocoResults:
    """Collects the results of all images, then writes them.

    `unknown` counts the images that are not in `annotations`.

    Args:
        categories: the classes of the detector.
        annotations: a COCO file that gives the image ids by file name. Images that it does not
            contain get the numbers after its largest id; without such a file, numbers from 1.
    """

    def __init__(self, categories: Categories, annotations: str | None = None):
        self.categories = categories
        self.images: list[dict] = []
        self.results: list[dict] = []
        self.unknown = 0
        content = read_annotations(annotations) if annotations else {"images": []}
        self._ids = {image.get("file_name"): image.get("id") for image in content["images"]}
        self._last = max((i for i in self._ids.values() if isinstance(i, int)), default=0)

    def add(self, entry: dict, found: Instances) -> None:
        """Keep the detections in one image.

        Args:
            entry: of the image in images.json, without its id: file_name, width, height, ...
        """
        image_id = self._ids.get(entry["file_name"]) if "frame" not in entry else None
        if image_id is None:
            self._last += 1
            self.unknown += 1
            image_id = self._last
        self.images.append({"id": image_id, **entry})
        self.results += results_of(found, image_id, self.categories)

    def write(self, folder: Path) -> None:
        write_text(folder / IMAGES, json.dumps(images_json(self.images, self.categories)))
        write_text(folder / RESULTS, json.dumps(self.results))
