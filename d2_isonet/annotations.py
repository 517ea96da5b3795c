"""Reading a COCO json of one's own, and refusing early what training would trip over."""

import json
import math
import os
from collections.abc import Callable


def read_annotations(json_file: str) -> dict:
    """The content of a COCO annotation file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not json, or not of COCO's form, or has no categories.
    """
    path = os.path.abspath(json_file)
    if not os.path.isfile(json_file):
        raise FileNotFoundError(f"annotations: there is no file {path}")
    try:
        with open(json_file) as file:
            content = json.load(file)
        names = [category["name"] for category in content["categories"]]
        _ = [image["id"] for image in content["images"]], content["annotations"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no COCO annotation file: {type(error).__name__} {error}; it needs images, "
            "annotations and categories"
        ) from error
    if not names:
        raise ValueError(f"{path} has an empty list of categories")
    return content


def class_names(content: dict) -> list[str]:
    """Category names in the order of their ids, which is detectron2's."""
    return [c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])]


def check_annotations(content: dict, json_file: str, image_root: str, masks: bool) -> None:
    """Refuse annotations that end a training or an evaluation midway.

    Args:
        masks: whether every object needs a segmentation.

    Raises:
        ValueError: annotations with an unknown category or image, no box of four numbers, no
            segmentation; or none that can be learned. The first are named, all are counted.
        FileNotFoundError: an image is not in the folder.
    """
    path, annotations = os.path.abspath(json_file), content["annotations"]
    categories = {c["id"] for c in content["categories"]}
    images = {i["id"] for i in content["images"]}
    rules: list[tuple[str, Callable[[dict], bool]]] = [
        (f"a category_id that is none of {sorted(categories)}",
         lambda a: a.get("category_id") not in categories),
        ("an image_id that no image has", lambda a: a.get("image_id") not in images),
        ("no bbox of four finite numbers", lambda a: not _is_box(a.get("bbox"))),
    ]  # fmt: skip
    if masks:
        rules.append(
            ("no segmentation (set MODEL.MASK_ON False, or use a faster_*.yaml, to do without)",
             lambda a: not a.get("segmentation"))
        )  # fmt: skip
    for what, is_bad in rules:
        bad = [a.get("id") for a in annotations if is_bad(a)]
        if bad:
            raise ValueError(
                f"{path}: {len(bad)} of {len(annotations)} annotations have {what}; the first are "
                f"those of id {bad[:5]}"
            )
    if all(a.get("iscrowd") for a in annotations):
        reason = "all are iscrowd" if annotations else "there are none"
        raise ValueError(f"{path}: no annotation can be learned ({reason})")
    _check_images(content["images"], image_root)


def _is_box(box) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(x, (int, float)) and math.isfinite(x) for x in box)
    )


def _check_images(images: list[dict], image_root: str) -> None:
    """A look at a sample; a wrong folder has none of them."""
    sample = images[:: max(1, len(images) // 20)]
    names = [image["file_name"] for image in sample]
    missing = [name for name in names if not os.path.isfile(os.path.join(image_root, name))]
    if missing:
        raise FileNotFoundError(
            f"images: {len(missing)} of {len(sample)} looked for are not in "
            f"{os.path.abspath(image_root)}, the first is {missing[0]}"
        )
