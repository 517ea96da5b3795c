"""Filling in what a COCO json leaves out and what can be had without guessing."""

from d2_isonet.data.coco_json import fill_in, is_id
from d2_isonet.preflight.data.coco_content import coco_entries
from d2_isonet.preflight.data.image_scan import look_at_all


def repair(content: dict, image_root: str) -> list[str]:
    """Fill in ids of annotations, sizes of images, area and iscrowd, in place; say what was done.

    Ids are given anew, 1 to N, where some are missing or given twice. Sizes are those of the files
    with the EXIF orientation applied.
    """
    done = []
    annotations = content.get("annotations", [])
    ids = {a["id"] for a in annotations if is_id(a.get("id"))}
    if len(ids) < len(annotations):
        for number, annotation in enumerate(annotations, 1):
            annotation["id"] = number
        done.append(f"{len(annotations)} annotations have new ids, 1 to {len(annotations)}")
    bare = [a for a in annotations if not {"iscrowd", "area"} <= a.keys() and a.get("bbox")]
    for annotation in bare:
        fill_in(annotation)
    if bare:
        done.append(f"{len(bare)} annotations have an area and iscrowd now")
    return done + _fill_in_sizes(content, image_root)


def _fill_in_sizes(content: dict, image_root: str) -> list[str]:
    named = [image for image in content["images"] if isinstance(image.get("file_name"), str)]
    sizeless = [i for i in named if not {"width", "height"} <= i.keys()]
    entries = coco_entries({"images": sizeless}, image_root)
    looks = look_at_all(entry.path for entry in entries)
    number = 0
    for image, entry in zip(sizeless, entries, strict=True):
        if not looks[entry.path].error:
            image["width"], image["height"] = looks[entry.path].upright_size()
            number += 1
    return [f"{number} images have the width and height of their files now"] if sizeless else []
