"""Values that are valid each by itself, and wrong beside the others."""

import copy
import re
from collections.abc import Callable

import numpy as np
import pytest

from d2_isonet.data.coco_json import malformed_keypoints_left_out
from d2_isonet.preflight.data.coco_content import coco_findings
from d2_isonet.preflight.data.dicts import dict_findings
from d2_isonet.preflight.data.objects import Demands

SIZES = [(120, 80), (90, 150), (200, 160)]


def plain(seed: int = 0) -> dict:
    """Three images, 24 objects of two classes with octagons for masks, all over the images."""
    random = np.random.default_rng(seed)
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": w, "height": h}
        for i, (w, h) in enumerate(SIZES, 1)
    ]
    annotations = []
    for number in range(24):
        image = images[number % 3]
        size = np.array([image["width"], image["height"]])
        side = random.uniform(0.15, 0.4, 2) * size
        start = random.uniform(0, 1, 2) * (size - side)
        start = (size - side) * (number % 2) if number < 4 else start  # some reach the corners
        x, y, w, h = *start, *side
        corners = [(0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3)]
        polygon = [v for a, b in corners for v in (x + a * w, y + b * h)]
        annotations.append(
            {"id": number + 1, "image_id": image["id"], "category_id": 1 + number // 3 % 2,
             "bbox": [x, y, w, h], "area": 0.82 * w * h, "iscrowd": 0, "segmentation": [polygon]}
        )  # fmt: skip
    names = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": names}


Change = Callable[[dict], None]


def each(change: Callable[[dict, dict], object], first: int = 0, last: int = 24) -> Change:
    """Call `change(annotation, image)` for annotations of those places."""

    def changed(content: dict) -> None:
        images = {image["id"]: image for image in content["images"]}
        for annotation in content["annotations"][first:last]:
            change(annotation, images[annotation["image_id"]])

    return changed


def points(move: Callable) -> Change:
    """Move the points of every mask: move(x, y, width and height of the image)."""

    def change(annotation: dict, image: dict) -> None:
        (polygon,) = annotation["segmentation"]
        xy = np.reshape(polygon, (-1, 2)).T
        moved = np.array(move(*xy, image["width"], image["height"]))
        annotation["segmentation"] = [moved.T.ravel().tolist()]

    return each(change)


def boxes(move: Callable, masks: bool = False) -> Change:
    """Replace the boxes: move(x, y, w, h, width and height of the image)."""

    def change(annotation: dict, image: dict) -> None:
        annotation["bbox"] = list(move(*annotation["bbox"], image["width"], image["height"]))
        if not masks:
            del annotation["segmentation"], annotation["area"]

    return each(change)


def set_to(key: str, value: object, last: int = 24) -> Change:
    return each(lambda annotation, _: annotation.update({key: value}), last=last)


def zero_rle(annotation: dict, image: dict) -> None:
    size = [image["height"], image["width"]]
    annotation["segmentation"] = {"counts": [size[0] * size[1]], "size": size}


def twice(content: dict) -> None:
    content["annotations"] += [{**a, "id": a["id"] + 50} for a in content["annotations"][:3]]


def one_class(content: dict) -> None:
    each(lambda a, _: a.update(iscrowd=int(a["category_id"] == 2)))(content)


def copied(content: dict) -> None:
    content["annotations"] = [
        {**a, "id": 10 * image + i + 1, "image_id": image, "bbox": [5 + i, 6, 30, 20 + 3 * i],
         "segmentation": [[5 + i, 6, 35 + i, 6, 35 + i, 26 + 3 * i, 5 + i, 26 + 3 * i]]}
        for image in (1, 2, 3) for i, a in enumerate(content["annotations"][:4])
    ]  # fmt: skip


OF_BOX = "with a mask that is not of its box: annotation"
AREA = "24 of 24 objects with an area that is not that of their mask or box: annotation 1"
CASES = {
    "masks 4 times as large": (points(lambda x, y, w, h: (4 * x, 4 * y)), "error",
        rf"24 of 24 objects {OF_BOX}.*they are 4 times \(x\), 4 times \(y\) as large"),
    "masks with x and y exchanged": (points(lambda x, y, w, h: (y, x)), "error",
        f"{OF_BOX}.*their x and y are exchanged"),
    "masks in fractions": (points(lambda x, y, w, h: (x / w, y / h)), "error",
        f"{OF_BOX}.*in fractions of the image"),
    "masks in percent": (points(lambda x, y, w, h: (100 * x / w, 100 * y / h)), "error",
        f"{OF_BOX}.*in percent of the image"),
    "negative masks": (points(lambda x, y, w, h: (-x, -y)), "error", OF_BOX),
    "moved masks": (points(lambda x, y, w, h: (x + 50, y + 50)), "error", OF_BOX),
    "a mask of another object": (
        lambda c: c["annotations"][0].update(segmentation=c["annotations"][3]["segmentation"]),
        "warning", f"1 of 24 objects {OF_BOX}"),
    "masks on a line": (points(lambda x, y, w, h: (x, x)), "error",
        "24 of 24 masks that cover nothing"),
    "RLE of zeros": (each(zero_rle), "error", "24 of 24 masks that cover nothing"),
    "one RLE of zeros": (each(zero_rle, 2, 3), "warning",
        "1 of 24 masks that cover nothing .*: annotation 3"),
    "RLE shorter than its image": (
        each(lambda a, i: a.update(
            segmentation={"counts": [3, 5], "size": [i["height"], i["width"]]})),
        "error", "24 of 24 objects with a segmentation that is neither polygons nor RLE"),
    "boxes in fractions": (boxes(lambda x, y, w, h, *s: (x / s[0], y / s[1], w / s[0], h / s[1])),
        "error", r"24 of 24 objects with a box in fractions \(0 to 1\).*multiply x and width"),
    "centers in fractions": (
        boxes(lambda x, y, w, h, *s: ((x + w / 2) / s[0], (y + h / 2) / s[1], w / s[0], h / s[1])),
        "error", "24 of 24 objects with a box in fractions"),
    "boxes in percent": (
        boxes(lambda *b: [100 * v / b[4 + i % 2] for i, v in enumerate(b[:4])]),
        "error", "24 of 24 objects with a box in percent .*divide by 100"),
    "some boxes in fractions": (
        each(lambda a, _: a.update(bbox=[0.1, 0.2, 0.3, 0.4]), 0, 4),
        "warning", "4 of 24 objects with a box in fractions"),
    "boxes by corners": (boxes(lambda x, y, w, h, *s: (x, y, x + w, y + h)), "error",
        "objects with a box that goes beyond its image.*as x1, y1, x2, y2 all fit"),
    "boxes by centers": (boxes(lambda x, y, w, h, *s: (x + w / 2, y + h / 2, w, h)), "error",
        "beyond its image.*as center x, center y, width, height all fit"),
    "boxes with x and y exchanged": (boxes(lambda x, y, w, h, *s: (y, x, h, w)), "error",
        "beyond its image.*as y, x, height, width all fit"),
    "boxes by corners, masks": (boxes(lambda x, y, w, h, *s: (x, y, x + w, y + h), True), "error",
        f"{OF_BOX}.*the boxes are x1, y1, x2, y2"),
    "boxes of larger images": (boxes(lambda x, y, w, h, *s: (3 * x, 3 * y, 3 * w, 3 * h)), "error",
        "24 objects with a box that goes beyond its image"),
    "boxes of smaller images": (boxes(lambda x, y, w, h, *s: (x / 3, y / 3, w / 3, h / 3)),
        "warning", "all boxes lie in the upper left quarter"),
    "negative areas": (set_to("area", -50.0), "warning", AREA),
    "areas of 0": (set_to("area", 0), "warning", AREA),
    "areas of 1": (set_to("area", 1.0), "warning", AREA),
    "one area for all": (set_to("area", 600), "warning", AREA),
    "areas in fractions": (each(lambda a, i: a.update(area=a["area"] / i["width"] / i["height"])),
        "warning", AREA),
    "areas of the image": (each(lambda a, i: a.update(area=i["width"] * i["height"])),
        "warning", "objects with an area that is not that of"),
    "many crowds": (set_to("iscrowd", 1, 14), "warning", r"14 of 24 objects \(58%\) are iscrowd"),
    "a class of crowds": (one_class, "warning", "1 of 2 classes have no object to learn from: dog"),
    "a class without boxes": (
        each(lambda a, _: a.update(bbox=[3, 3, 0, 0] if a["category_id"] == 2 else a["bbox"])),
        "warning", "1 of 2 classes have no object to learn from: dog"),
    "objects twice": (twice, "warning",
        "3 of 27 objects that are in their image twice: annotation 51"),
    "the same boxes everywhere": (copied, "warning", "all 3 images have the same 4 boxes"),
    "id 0": (lambda c: c["annotations"][0].update(id=0), "warning",
        "1 of 24 annotations with an id that is no whole number from 1.*: annotation 0.*--repair"),
    "ids of text": (each(lambda a, _: a.update(id=str(a["id"]))), "warning",
        "24 of 24 annotations with an id that is no whole"),
    "a size of half a pixel": (lambda c: c["images"][0].update(width=120.5), "error",
        "1 of 3 images with a width or height that is no whole number of pixels: image 1"),
    **{f"a polygon with {value}": (
        each(lambda a, _, v=value: a.update(segmentation=[[v, 1, 2, 3, 4, 5]], iscrowd=1), 2, 3),
        "error", "1 of 24 objects with (polygons that go beyond|a segmentation that is).*on 3")
       for value in (1e8, -1e9, 10**300, 10**400, float("nan"), float("inf"), "1", None, [1])},
}  # fmt: skip


def found_in(content: dict, demands: Demands) -> list[str]:
    return [f"{f.severity} {f}" for f in coco_findings(content, demands).findings]


@pytest.mark.parametrize(("change", "severity", "said"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("trained", [True, False])
def test_it_is_found(change, severity, said, trained):
    content = plain()
    change(content)
    found = found_in(content, Demands("x.json", masks=True, trained=trained))
    severity = "fact" if "classes have no" in said and not trained else severity
    said = said.removesuffix(" to learn from: dog") if not trained else said
    assert any(re.match(f"{severity} x.json: .*{said}", text) for text in found), "\n".join(found)


HARMLESS = {
    "the set": lambda content: None,
    "areas of the boxes": each(lambda a, _: a.update(area=a["bbox"][2] * a["bbox"][3])),
    "sizes of floats": lambda c: [i.update(width=i["width"] * 1.0) for i in c["images"]],
    "masks of half their boxes": points(lambda x, y, w, h: (x, y.min() + (y - y.min()) / 1.8)),
    "no masks": each(lambda a, _: a.pop("segmentation")),
    "keypoints of COCO's form": set_to("keypoints", [1, 2, 2, 3, 4, 1]),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_right_is_not(change, seed):
    content = plain(seed)
    change(content)
    found = found_in(content, Demands("x.json"))
    assert all(text.startswith("fact") for text in found), "\n".join(found)


KEYPOINTS = [[[1, 2, 2], [3, 4, 2]], None, "1 2 2", 5, {"a": 1}, [1, 2], [float("nan"), 1, 2]]


@pytest.mark.parametrize("value", KEYPOINTS, ids=str)
def test_keypoints_of_another_form_matter_only_where_keypoints_are_learned(value):
    content = plain()
    set_to("keypoints", value)(content)
    said = "24 of 24 objects with keypoints"
    for number, severity in ((0, "fact"), (2, "error")):
        found = found_in(content, Demands("x.json", keypoints=number))
        assert [text.split()[0] for text in found if said in text] == [severity]


@pytest.mark.parametrize("value", KEYPOINTS, ids=str)
def test_keypoints_of_another_form_are_left_out_by_the_loader(value, tmp_path):
    import json

    from detectron2.data.datasets import load_coco_json

    content = plain()
    set_to("keypoints", value)(content)
    right = {**content["annotations"][0], "keypoints": [1, 2, 2]}
    content["annotations"][0] = right
    (tmp_path / "x.json").write_text(json.dumps(content))
    with malformed_keypoints_left_out():
        dicts = load_coco_json(str(tmp_path / "x.json"), "")
    annotations = [a for d in dicts for a in d["annotations"]]
    assert len(annotations) == 24
    assert [a["keypoints"] for a in annotations if "keypoints" in a] == [[1.5, 2.5, 2]]


def test_the_sets_of_python_are_compared_too():
    content = plain()
    points(lambda x, y, w, h: (4e8 * x, y))(content)
    dicts = [
        {"file_name": i["file_name"], "height": i["height"], "width": i["width"], "annotations": [
            {**copy.deepcopy(a), "category_id": 0, "bbox_mode": 1}
            for a in content["annotations"] if a["image_id"] == i["id"]]}
        for i in content["images"]
    ]  # fmt: skip
    found = dict_findings(dicts, ["cat"], Demands("my_set")).findings
    assert any("24 of 24 objects with polygons that go beyond" in str(f) for f in found)
