"""Fills in what a COCO json lacks and what can only mean one thing: for `check-data --repair`."""

import os
from collections.abc import Iterable, Sequence

import numpy as np

from d2_isonet.data.coco_json import areas_of, boxes_of, renumber_unusable_ids
from d2_isonet.data.masks import mask_problem, measured, right_areas
from d2_isonet.utils.messages import shortened

from .coco_content import coco_entries
from .image_scan import look_at_all
from .images import Look
from .nearest_files import NearestFiles


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
        *_areas(content),
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
    what = f"{len(annotations)} annotations have new ids, 1 to {len(annotations)}"
    return [what] if renumber_unusable_ids(annotations) else []


def _areas(content: dict) -> list[str]:
    annotations, items = content.get("annotations", []), []
    crowds = [annotation for annotation in annotations if "iscrowd" not in annotation]
    for annotation in crowds:
        annotation["iscrowd"] = 0
    masks = [annotation.get("segmentation") for annotation in annotations]
    problems = [mask_problem(mask, None) for mask in masks]
    stated = areas_of(annotations)
    right = right_areas(stated, boxes_of(annotations), measured(masks, problems)[1])
    for place in np.flatnonzero((right != stated) & ~np.isnan(right)).tolist():
        annotation, area = annotations[place], float(right[place])
        items.append(f"annotation {annotation['id']} ({annotation.get('area')!r} -> {area:g})")
        annotation["area"] = area
    zeros = [f"{len(crowds)} annotations have iscrowd 0"] if crowds else []
    return [*_done(items, "annotations have the area of their mask or box"), *zeros]
