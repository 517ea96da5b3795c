"""What was found in COCO's form: results.json, and images.json that says what its ids mean."""

import json
from pathlib import Path

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances

from d2_isonet.data.categories import Categories
from d2_isonet.data.coco_json import read_annotations
from d2_isonet.utils.files import write_text

from .outputs import IMAGES, RESULTS


def results_of(found: Instances, image_id: int, categories: Categories) -> list[dict]:
    """COCO's results for one image: image_id, category_id, bbox (x, y, w, h), score, segmentation.

    Args:
        found: on the CPU, its boxes and masks in pixels of the original image.
    """
    results = instances_to_coco_json(found, image_id)
    for result in results:
        result["category_id"] = categories.ids[result["category_id"]]
    return results


def images_json(images: list[dict], categories: Categories) -> dict:
    """A COCO annotation file without annotations, which pycocotools reads the results with."""
    named = zip(categories.ids, categories.names, strict=True)
    return {
        "info": {"description": "images and categories of the results beside this file"},
        "images": images,
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in named],
    }


class CocoResults:
    """Results as they come, written when all are there.

    Args:
        categories: the detector's.
        annotations: a COCO file whose image ids are taken, by file name. Other images, and all
            without such a file, are numbered on from there, or from 1.

    `unknown` counts the images that are not in that file.
    """

    def __init__(self, categories: Categories, annotations: str | None = None):
        self.categories = categories
        self.images: list[dict] = []
        self.results: list[dict] = []
        content = read_annotations(annotations) if annotations else {"images": []}
        self._ids = {image.get("file_name"): image.get("id") for image in content["images"]}
        numbers = [i for i in self._ids.values() if isinstance(i, int)]
        self._last = max(numbers, default=0)
        self.unknown = 0

    def add(self, entry: dict, found: Instances) -> None:
        """Keep what was found in an image.

        Args:
            entry: what images.json says of the image beside its id: file_name, width, height, ...
        """
        known = self._ids.get(entry["file_name"]) if "frame" not in entry else None
        if known is None:
            self._last += 1
            self.unknown += 1
        image_id = self._last if known is None else known
        self.images.append({"id": image_id, **entry})
        self.results += results_of(found, image_id, self.categories)

    def write(self, folder: Path) -> None:
        write_text(folder / IMAGES, json.dumps(images_json(self.images, self.categories)))
        write_text(folder / RESULTS, json.dumps(self.results))
