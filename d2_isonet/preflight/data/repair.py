"""Fills in what a COCO json lacks and what can only mean one thing: for `check-data --repair`."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from d2_isonet.utils.messages import shortened

from .coco_content import coco_entries, is_number
from .image_scan import look_at_all
from .images import Look
from .nearest_files import NearestFiles
from .objects import box_problem, mask_problem


def repair(content: dict, image_root: str) -> list[str]:
    """Put right, in place, the names and sizes of images and the ids and areas of annotations.

    Names become those of the files that they mean, see `NearestFiles`. Sizes become those of the
    upright images, unless they are exchanged as if before the EXIF orientation, since boxes may be
    so, too. If an id is no whole number from 1, or occurs twice, the annotations are numbered.

    Returns:
        What was done, a line for each kind.
    """
    images, annotations = content["images"], content.get("annotations", [])
    return [
        *_names(images, image_root),
        *_sizes(images, image_root),
        *_ids(annotations),
        *_areas(annotations),
    ]


def _done(items: Sequence[str], what: str) -> list[str]:
    return [f"{len(items)} {what}: {shortened(items)}"] if items else []


def _named(images: Iterable[dict]) -> list[dict]:
    return [image for image in images if isinstance(image.get("file_name"), str)]


def _names(images: Sequence[dict], image_root: str) -> list[str]:
    named = _named(images)
    entries = coco_entries({"images": named}, image_root)
    lost = [(i, e.path) for i, e in zip(named, entries, strict=True) if not os.path.exists(e.path)]
    nearest = NearestFiles(image_root) if lost else None
    items = []
    for image, path in lost:
        file = nearest.find(path) if nearest else None
        if file:
            name = os.path.relpath(file, image_root)
            items.append(f"{image['file_name']} -> {name}")
            image["file_name"] = name
    return _done(items, "images have the name of the file that is there")


def _sizes(images: Sequence[dict], image_root: str) -> list[str]:
    named = _named(images)
    entries = coco_entries({"images": named}, image_root)
    looks = look_at_all((entry.path for entry in entries), "sizes")
    items = []
    for image, entry in zip(named, entries, strict=True):
        look, before = Look(entry, looks[entry.path]), entry[1:]
        after = look.file.upright_size()
        if not (
            look.file.error or look.is_turned() or list(map(repr, before)) == [*map(repr, after)]
        ):
            image["width"], image["height"] = after
            items.append("{} ({!r} x {!r} -> {} x {})".format(image["file_name"], *before, *after))
    what = "images have the width and height of their files; see whether the boxes are of them"
    return _done(items, what)


def _ids(annotations: Sequence[dict]) -> list[str]:
    ids = {a["id"] for a in annotations if type(a.get("id")) is int and a["id"] > 0}
    if len(ids) == len(annotations):
        return []
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    return [f"{len(annotations)} annotations have new ids, 1 to {len(annotations)}"]


def _areas(annotations: Sequence[dict]) -> list[str]:
    items, crowds = [], 0
    for annotation in annotations:
        crowds += "iscrowd" not in annotation
        annotation.setdefault("iscrowd", 0)
        area, right = annotation.get("area"), _right_area(annotation)
        if right is not None and right != area:
            items.append(f"annotation {annotation['id']} ({area!r} -> {right:g})")
            annotation["area"] = right
    what = "annotations have the area of their mask or box"
    zeros = [f"{crowds} annotations have iscrowd 0"] if crowds else []
    return [*_done(items, what), *zeros]


def _right_area(annotation: dict[str, Any]) -> float | None:
    """The stated area if it is possible, else that of the mask or box; None if these are none."""
    area, box, segmentation = map(annotation.get, ("area", "bbox", "segmentation"))
    if box is None or box_problem(box, None):
        return None
    width, height = box[2:]
    mask = 0.0 if mask_problem(segmentation, None) else _mask_area(segmentation)
    outline = width + height  # pixels that the rounding of a mask may add or take
    most = 1.5 * width * height + outline
    right = mask if 0 < mask <= most else width * height
    least = 0.5 * min(right, width * height) - outline
    return area if is_number(area) and max(least, 0) < area <= most else float(right)


def _mask_area(segmentation: Any) -> float:
    """The area in pixels of polygons, of which each counts, or of RLE."""
    if isinstance(segmentation, list):
        corners = [np.reshape(polygon, (-1, 2)).T for polygon in segmentation]
        return sum(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2 for x, y in corners)
    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *segmentation["size"])
    return float(coco_mask.area(segmentation))
