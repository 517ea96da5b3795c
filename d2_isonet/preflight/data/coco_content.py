"""Checks the content of a COCO json: its ids, its keys and its objects."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable

from d2_isonet.data.coco_json import can_be_sorted, class_names, is_id, repeated
from d2_isonet.preflight.findings import Finding, Severity, found
from d2_isonet.utils.messages import shortened

from .images import ImageEntry
from .objects import Demands, LabelledObject, object_findings

REPAIR = "d2-isonet check-data --annotations FILE --images DIR --repair NEW writes a file with {}"


def coco_findings(content: dict, demands: Demands) -> tuple[list[Finding], bool]:
    """What is wrong with the content of `read_annotations`, and whether any mask is RLE."""
    where = demands.where
    objects, has_rle = object_findings(_objects(content), class_names(content), demands)
    return [
        Finding("fact", where, *_summary(content)),
        *_categories(content, where),
        *_images(content["images"], where),
        *_annotation_ids(content, where),
        *_unknown_ids(content, where),
        *_other_keys(content, where),
        *objects,
    ], has_rle


def coco_entries(content: dict, image_root: str) -> list[ImageEntry]:
    """The image files of a COCO json; images without file_name, an error above, are left out."""
    root = os.path.abspath(image_root) if "://" not in image_root else image_root
    return [
        ImageEntry(os.path.join(root, image["file_name"]), *map(image.get, ("width", "height")))
        for image in content["images"]
        if isinstance(image.get("file_name"), str)
    ]


def _summary(content: dict) -> tuple[str, str]:
    annotations, images = content.get("annotations", []), len(content["images"])
    known = {image["id"] for image in content["images"] if is_id(image.get("id"))}
    used = len({a["image_id"] for a in annotations if _is_in(a.get("image_id"), known)})
    left_out = "the others are not trained on where DATALOADER.FILTER_EMPTY_ANNOTATIONS is True"
    what = (
        f"{used} of {images} images have annotations, {len(annotations)} in all, of "
        f"{len(content['categories'])} categories"
    )
    return what, left_out if used < images else ""


def _categories(content: dict, where: str) -> Iterable[Finding]:
    ids = sorted(category["id"] for category in content["categories"])
    names = repeated(class_names(content))
    yield from found(
        "warning", where, names, "names that stand for several categories", "rename them"
    )
    if ids != list(range(1, len(ids) + 1)):
        pairs = [f"{category} -> {index}" for index, category in enumerate(ids)]
        yield Finding("fact", where, f"category ids become class indices: {shortened(pairs)}")


def _images(images: list[dict], where: str) -> Iterable[Finding]:
    of = f"of {len(images)} images"
    if not images:
        yield Finding("error", where, "the list of images is empty", "give another file")
    ids, nameless = _ids(images, "images")
    yield from found("error", where, nameless, f"{of} without id", "give each image its own")
    twice = [str(i) for i in repeated(ids)]
    yield from found("error", where, twice, "ids of images given twice", "make them unique")
    if not can_be_sorted(ids):
        yield Finding("error", where, "some ids of images are numbers, others text", "use one kind")
    named = [image.get("file_name") for image in images]
    bad = [_name(image, i, "image") for i, image in enumerate(images)
           if not isinstance(image.get("file_name"), str)]  # fmt: skip
    yield from found("error", where, bad, f"{of} without file_name", "name the file")
    twice = repeated(name for name in named if isinstance(name, str))
    yield from found("warning", where, twice, "files listed as several images", "list them once")
    sizeless = [_name(image, i, "image") for i, image in enumerate(images) if not _has_size(image)]
    remedy = REPAIR.format("the sizes of the files")
    yield from found("error", where, sizeless, f"{of} without width and height", remedy)


def _ids(entries: list[dict], kind: str) -> tuple[list, list[str]]:
    """The ids, and the places of entries without one."""
    ids = [entry["id"] for entry in entries if is_id(entry.get("id"))]
    return ids, [f"{kind}[{i}]" for i, entry in enumerate(entries) if not is_id(entry.get("id"))]


def _name(entry: dict, place: int, kind: str) -> str:
    return f"{kind} {entry['id']}" if is_id(entry.get("id")) else f"{kind}s[{place}]"


def _has_size(image: dict) -> bool:
    return all(is_number(image.get(key)) and image[key] > 0 for key in ("width", "height"))


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _annotation_ids(content: dict, where: str) -> Iterable[Finding]:
    annotations = content.get("annotations", [])
    ids, missing = _ids(annotations, "annotations")
    remedy = REPAIR.format("new ids, 1 to N")
    of = f"of {len(annotations)} annotations"
    yield from found("error", where, missing, f"{of} without id", remedy)
    twice = [str(i) for i in repeated(ids)]
    yield from found("error", where, twice, "ids of annotations given twice", remedy)


def _unknown_ids(content: dict, where: str) -> Iterable[Finding]:
    of = f"of {len(content.get('annotations', []))} annotations"
    for key, part in (("category_id", "categories"), ("image_id", "images")):
        known = {entry["id"] for entry in content[part] if is_id(entry.get("id"))}
        bad = [a for a in content.get("annotations", []) if not _is_in(a.get(key), known)]
        counts = Counter(repr(a.get(key)) for a in bad)
        values = [f"{value} (in {count})" for value, count in counts.items()]
        what = f"{of} whose {key} is none of the {part}"
        for finding in found("error", where, values, "", f"correct them, or add the {part}"):
            yield finding._replace(what=f"{len(bad)} {what}: {shortened(values)}")


def _is_in(value: object, known: set) -> bool:
    return is_id(value) and value in known


def _other_keys(content: dict, where: str) -> Iterable[Finding]:
    annotations = content.get("annotations", [])
    of = f"of {len(annotations)} annotations"

    def names(is_bad) -> list[str]:
        return [_name(a, i, "annotation") for i, a in enumerate(annotations) if is_bad(a)]

    rules: tuple[tuple[Severity, Callable[[dict], bool], str, str], ...] = (
        ("warning", lambda a: "area" not in a, "without area", "evaluation takes their box's"),
        ("warning", lambda a: "iscrowd" not in a, "without iscrowd", "0 is taken"),
        ("error", lambda a: not is_number(a.get("area", 0)), "with an area that is no number",
         "correct it, or leave it out"),
        ("error", lambda a: not _is_one_of(a.get("iscrowd", 0), (0, 1)),
         "with an iscrowd other than 0 and 1", "detectron2 takes all but 0 for crowds: correct it"),
        ("error", lambda a: not _is_one_of(a.get("ignore", 0), (0,)), "with ignore other than 0",
         "detectron2 has no such thing: make it iscrowd, or take the annotation out"),
    )  # fmt: skip
    for severity, is_bad, what, remedy in rules:
        yield from found(severity, where, names(is_bad), f"{of} {what}", remedy)


def _is_one_of(value: object, allowed: tuple) -> bool:
    return isinstance(value, (int, float)) and value in allowed


def _objects(content: dict) -> Iterable[LabelledObject]:
    categories = sorted(category["id"] for category in content["categories"])
    index = {category: i for i, category in enumerate(categories)}
    sizes = {
        image["id"]: (image["width"], image["height"])
        for image in content["images"]
        if is_id(image.get("id")) and _has_size(image)
    }
    for i, a in enumerate(content.get("annotations", [])):
        category, image = a.get("category_id"), a.get("image_id")
        yield LabelledObject(
            _name(a, i, "annotation"),
            index.get(category, -1) if is_id(category) else -1,
            a.get("bbox"),
            a.get("segmentation"),
            a.get("iscrowd", 0) != 0,
            sizes.get(image) if is_id(image) else None,
        )
