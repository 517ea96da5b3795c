"""Checks the content of a COCO json: its ids, its keys and its objects."""

import functools
import os
from collections.abc import Iterable, Iterator

from d2_isonet.data.coco_json import (
    can_be_sorted,
    class_names,
    is_annotation_id,
    is_id,
    is_number,
    repeated,
)
from d2_isonet.preflight.findings import Finding, Rule, broken_rules, found, found_values
from d2_isonet.utils.messages import shortened

from .images import ImageEntry
from .objects import CheckedObjects, Demands, LabelledObject, object_findings

REPAIR = "d2-isonet check-data --annotations FILE --images DIR --repair NEW writes a file with {}"
_NEW_IDS = REPAIR.format("new ids, 1 to N")


def coco_findings(content: dict, demands: Demands) -> CheckedObjects:
    """What is wrong with the content of `read_annotations`."""
    where, images = demands.where, content["images"]
    annotations = content.get("annotations", [])
    checked = object_findings(_objects(content), class_names(content), demands)
    findings = [
        _summary(content, where),
        *_categories(content, where),
        *broken_rules(where, "images", images, functools.partial(_name, "image"), _IMAGE_RULES),
        *_images(images, where),
        *broken_rules(
            where, "annotations", annotations, functools.partial(_name, "annotation"),
            _ANNOTATION_RULES,
        ),
        *_annotation_ids(content, where),
        *checked.findings,
    ]  # fmt: skip
    return checked._replace(findings=findings)


def coco_entries(content: dict, image_root: str) -> list[ImageEntry]:
    """The image files of a COCO json; images without file_name, an error above, are left out."""
    root = os.path.abspath(image_root) if "://" not in image_root else image_root
    return [
        ImageEntry(os.path.join(root, image["file_name"]), *map(image.get, ("width", "height")))
        for image in content["images"]
        if isinstance(image.get("file_name"), str)
    ]


def _summary(content: dict, where: str) -> Finding:
    annotations, images = content.get("annotations", []), content["images"]
    known = set(_ids(images))
    used = len({a["image_id"] for a in annotations if _is_in(a.get("image_id"), known)})
    left_out = "the others are not trained on where DATALOADER.FILTER_EMPTY_ANNOTATIONS is True"
    what = (
        f"{used} of {len(images)} images have annotations, {len(annotations)} in all, of "
        f"{len(content['categories'])} categories"
    )
    return Finding("fact", where, what, left_out if used < len(images) else "")


def _categories(content: dict, where: str) -> Iterator[Finding]:
    names = repeated(class_names(content))
    what = "names that stand for several categories"
    yield from found("warning", where, names, what, "rename them")
    ids = sorted(_ids(content["categories"]))
    if ids != list(range(1, len(ids) + 1)):
        pairs = [f"{category} -> {index}" for index, category in enumerate(ids)]
        yield Finding("fact", where, f"category ids become class indices: {shortened(pairs)}")


def _images(images: list[dict], where: str) -> Iterator[Finding]:
    if not images:
        yield Finding("error", where, "the list of images is empty", "give another file")
    ids = _ids(images)
    twice = [str(i) for i in repeated(ids)]
    yield from found("error", where, twice, "ids of images given twice", "make them unique")
    if not can_be_sorted(ids):
        yield Finding("error", where, "some ids of images are numbers, others text", "use one kind")
    files = repeated(image["file_name"] for image in images if _has_file(image))
    yield from found("warning", where, files, "files listed as several images", "list them once")


def _annotation_ids(content: dict, where: str) -> Iterator[Finding]:
    annotations = content.get("annotations", [])
    twice = [str(i) for i in repeated(_ids(annotations))]
    yield from found("error", where, twice, "ids of annotations given twice", _NEW_IDS)
    for key, part in (("category_id", "categories"), ("image_id", "images")):
        known = set(_ids(content[part]))
        unknown = [a.get(key) for a in annotations if not _is_in(a.get(key), known)]
        what = f"of {len(annotations)} annotations whose {key} is none of the {part}"
        yield from found_values(where, unknown, what, f"correct them, or add the {part}")


def _ids(entries: Iterable[dict]) -> list:
    return [entry["id"] for entry in entries if is_id(entry.get("id"))]


def _is_in(value: object, known: set) -> bool:
    return is_id(value) and value in known


def _name(kind: str, entry: dict, place: int) -> str:
    return f"{kind} {entry['id']}" if is_id(entry.get("id")) else f"{kind}s[{place}]"


def _has_file(image: dict) -> bool:
    return isinstance(image.get("file_name"), str)


def _has_size(image: dict) -> bool:
    return all(is_number(image.get(key)) and image[key] > 0 for key in ("width", "height"))


def _is_one_of(value: object, *allowed: int) -> bool:
    return isinstance(value, (int, float)) and value in allowed


_IMAGE_RULES = (
    Rule("error", lambda i: not is_id(i.get("id")), "without id", "give each image its own"),
    Rule("error", lambda i: not _has_file(i), "without file_name", "name the file"),
    Rule("error", lambda i: not _has_size(i), "without width and height",
         REPAIR.format("the sizes of the files")),
    Rule("error", lambda i: _has_size(i) and not all(i[k] % 1 == 0 for k in ("width", "height")),
         "with a width or height that is no whole number of pixels",
         REPAIR.format("the sizes of the files")),
)  # fmt: skip
_ANNOTATION_RULES = (
    Rule("error", lambda a: not is_id(a.get("id")), "without id", _NEW_IDS),
    Rule("warning", lambda a: is_id(a.get("id")) and not is_annotation_id(a["id"]),
         "with an id that is no whole number from 1, which COCO's own code takes for none",
         f"evaluation numbers them itself; {_NEW_IDS}"),
    Rule("warning", lambda a: "area" not in a, "without area",
         "evaluation takes that of their mask or box"),
    Rule("warning", lambda a: "iscrowd" not in a, "without iscrowd", "0 is taken"),
    Rule("error", lambda a: not is_number(a.get("area", 0)), "with an area that is no number",
         "correct it, or leave it out"),
    Rule("error", lambda a: not _is_one_of(a.get("iscrowd", 0), 0, 1),
         "with an iscrowd other than 0 and 1", "detectron2 takes all but 0 for crowds: correct it"),
    Rule("error", lambda a: not _is_one_of(a.get("ignore", 0), 0), "with ignore other than 0",
         "detectron2 has no such thing: make it iscrowd, or take the annotation out"),
)  # fmt: skip


def _objects(content: dict) -> Iterator[LabelledObject]:
    index = {category: i for i, category in enumerate(sorted(_ids(content["categories"])))}
    sizes = {
        image["id"]: (image["width"], image["height"])
        for image in content["images"]
        if is_id(image.get("id")) and _has_size(image)
    }
    for i, a in enumerate(content.get("annotations", [])):
        category, image = a.get("category_id"), a.get("image_id")
        yield LabelledObject(
            _name("annotation", a, i),
            index.get(category, -1) if is_id(category) else -1,
            a.get("bbox"),
            a.get("segmentation"),
            a.get("iscrowd", 0) != 0,
            sizes.get(image) if is_id(image) else None,
            image if is_id(image) else None,
            a.get("area"),
            a.get("keypoints", ()),
        )
