"""Data that detectron2 trips over, or learns from without a word: each is told before a run."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode
from PIL import Image

from d2_isonet.config.loading import load_config
from d2_isonet.preflight.data.sets import check_datasets, dataset_findings

NAMES = ("bad_train", "bad_val")


class Data:
    """A set of 4 images and 7 objects of 3 classes; a change to it; a config."""

    def __init__(self, json_file: Path, images: Path):
        self.json_file, self.images = json_file, images
        self.content = json.loads(json_file.read_text())
        self.annotations = self.content["annotations"]
        self.opts = ["MODEL.ROI_HEADS.NUM_CLASSES", "3"]
        self.train, self.test = NAMES[:1], NAMES[:0]

    def config(self):
        self.json_file.write_text(json.dumps(self.content))
        for name in NAMES:
            if name not in DatasetCatalog.list():
                register_coco_instances(name, {}, str(self.json_file), str(self.images))
        cfg = load_config("configs/risonet18_c4.yaml", self.opts)
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = self.train, self.test
        return cfg

    def file(self, number: int) -> Path:
        return self.images / f"{number}.jpg"

    def register(self, *changes: Callable[[list[dict]], None], **metadata) -> None:
        """Instead of the json, dicts of Python's for both sets."""
        box = {"bbox": [1.0, 2.0, 30.0, 40.0], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0,
               "segmentation": [[1.0, 2.0, 30.0, 2.0, 30.0, 40.0]]}  # fmt: skip
        dicts = [
            {"file_name": str(self.file(i)), "image_id": i, "height": 60, "width": 80,
             "annotations": [dict(box), {**box, "category_id": 1 + i % 2}]}
            for i in range(4)
        ]  # fmt: skip
        for change in changes:
            change(dicts)
        for name in NAMES:
            DatasetCatalog.register(name, lambda: dicts)
            MetadataCatalog.get(name).set(**{"thing_classes": ["cat", "tree", "ship"], **metadata})


class Row(NamedTuple):
    """A row of the table of bad inputs: its number, what is done, what is said about it."""

    number: int
    change: Callable[[Data], object]
    severity: str
    said: str

    def __str__(self) -> str:
        return f"{self.number}-{self.said[:40]}"


def each(key: str, value: object) -> Callable[[Data], None]:
    """Set a key of every annotation."""
    return lambda data: [annotation.update({key: value}) for annotation in data.annotations]


def one(part: str, **values) -> Callable[[Data], None]:
    """Set keys of the second image or annotation."""
    return lambda data: data.content[part][1].update(values)


def without(part: str, key: str) -> Callable[[Data], None]:
    return lambda data: data.content[part][1].pop(key)


def head(number: int) -> Callable[[Data], None]:
    return lambda data: data.opts.extend(["MODEL.ROI_HEADS.NUM_CLASSES", str(number)])


def of_python(change: Callable[[list[dict]], object]) -> Callable[[Data], None]:
    return lambda data: data.register(change)


def evaluated(data: Data) -> None:
    data.test = NAMES[1:]


def no_json(data: Data) -> None:
    register_coco_instances(NAMES[0], {}, str(data.images / "no.json"), str(data.images))


def no_folder(data: Data) -> None:
    register_coco_instances(NAMES[0], {}, str(data.json_file), str(data.images / "nowhere"))


def other_folder(data: Data) -> None:
    data.images = data.images / "empty"
    data.images.mkdir()


def no_coco(data: Data) -> None:
    data.train = ("coco_2017_train",)


def retinanet(data: Data) -> None:
    data.opts = ["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.RETINANET.NUM_CLASSES", "4"]


def truncated(data: Data) -> None:
    data.file(1).write_bytes(data.file(1).read_bytes()[:700])


def deep(data: Data) -> None:
    Image.fromarray(np.full((60, 80), 40000, dtype=np.uint16)).save(data.images / "deep.png")
    data.content["images"][1]["file_name"] = "deep.png"


def saved(size: tuple[int, int], name: str, *opts: str, **options) -> Callable[[Data], None]:
    """Let the second image be one of that size."""

    def change(data: Data) -> None:
        Image.new("RGB", size).save(data.images / name, **options)
        data.content["images"][1].update(file_name=name, width=size[0], height=size[1])
        data.opts = [*data.opts, *opts]

    return change


def fifo(data: Data) -> None:
    data.file(1).unlink()
    os.mkfifo(data.images / "fifo")
    data.file(1).symlink_to("fifo")


def turned(data: Data) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(data.file(1)).save(data.file(1), exif=exif)


def turned_rightly(data: Data) -> None:
    turned(data)
    data.content["images"][1].update(width=60, height=80)


def of_other_kinds(data: Data) -> None:
    for number, mode in enumerate(("L", "CMYK")):
        Image.open(data.file(number)).convert(mode).save(data.file(number))
    Image.open(data.file(2)).convert("RGBA").save(data.images / "2.png")
    data.content["images"][2]["file_name"] = "2.png"


def one_image(data: Data) -> None:
    data.content["images"] = data.content["images"][2:3]
    data.content["annotations"] = [a for a in data.annotations if a["image_id"] == 2]
    data.opts += ["SOLVER.IMS_PER_BATCH", "16"]


def no_ground_truth(*, key: bool) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        content = {**data.content, "annotations": []}
        if not key:
            del content["annotations"]
        file = data.json_file.with_name("val.json")
        file.write_text(json.dumps(content))
        register_coco_instances(NAMES[1], {}, str(file), str(data.images))
        evaluated(data)

    return change


def bare(data: Data) -> None:
    for annotation in data.annotations:
        del annotation["area"], annotation["iscrowd"]


RLE = {"counts": [0, 4800], "size": [60, 80]}
XYXY = "x1, y1, x2, y2 instead of x, y, width, height"

ROWS = [
    Row(1, no_json, "error", "'bad_train': json_file /.*/no.json not there; .*DETECTRON2_DATA"),
    Row(1, lambda data: data.content.pop("images"), "error",
        "instances.json is no COCO annotation file: it has no images"),
    Row(2, no_folder, "error", "'bad_train': image_root /.*/nowhere not there"),
    Row(2, other_folder, "error", "4 of 4 images .* not there: /.*/empty/0.jpg, .*right folder"),
    Row(2, lambda data: data.file(3).unlink(), "error", "1 of 4 images .* not there: /.*/3.jpg"),
    Row(3, lambda data: setattr(data, "train", ("bad_tren", "bad_vall")), "error",
        "'bad_tren'; did you mean bad_train.*\n.*'bad_vall'; did you mean bad_val"),
    Row(4, no_coco, "error", "json_file /.*2017.json, image_root /.*2017 not there; set DETE"),
    Row(6, lambda data: setattr(data, "train", ()), "error", "DATASETS.TRAIN: it is empty; name a"),
    Row(7, lambda data: data.content.update(annotations=[]), "error",
        r"no object can be learned \(there are no annotations\)"),
    Row(7, lambda data: data.content.pop("annotations"), "error", "learned .there are no ann"),
    Row(7, lambda data: data.content.update(annotations=[]), "fact",
        "0 of 4 images have annotations.*FILTER_EMPTY_ANNOTATIONS"),
    Row(7, lambda data: data.content.update(images=[]), "error", "the list of images is empty"),
    Row(7, of_python(lambda d: d[0].update(annotations=None)), "error",
        "1 of 4 images without annotations: /.*0.jpg"),
    Row(7, of_python(lambda d: d.clear()), "error", "bad_train: it is empty or no list of dicts"),
    Row(8, each("iscrowd", 1), "error", r"no object can be learned \(all are iscrowd\)"),
    Row(9, lambda data: (each("iscrowd", 1)(data),
                         data.opts.extend(["DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False"])),
        "error", r"no object can be learned \(all are iscrowd\)"),
    Row(10, lambda data: None, "fact", "category ids become class indices: 3 -> 0, 7 -> 1, 9 -> 2"),
    Row(11, lambda data: [data.annotations[i].update(category_id=i) for i in (0, 1, 4)], "error",
        r"3 of 7 annotations whose category_id is none of the categories: 0 \(in 1\), 1 .*, 4 "),
    Row(11, one("annotations", image_id=77), "error", r"whose image_id is none of .*: 77 \(in 1\)"),
    Row(11, one("categories", id=9), "error", "categories share an id: 9"),
    Row(12, each("id", 5), "error", "1 ids of annotations given twice: 5; .*--repair NEW"),
    Row(12, without("annotations", "id"), "error", r"without id: annotations\[1\]; .*--repair NEW"),
    Row(12, one("images", id=0), "error", "1 ids of images given twice: 0"),
    Row(12, without("images", "id"), "error", r"1 of 4 images without id: images\[1\]"),
    Row(13, head(2), "error", "ROI_HEADS.NUM_CLASSES: it is 2, .*'bad_train' has 3 classes .cat"),
    Row(14, head(1), "error", "NUM_CLASSES: it is 1, .* set MODEL.ROI_HEADS.NUM_CLASSES 3"),
    Row(15, head(80), "error", "NUM_CLASSES: it is 80, .* set MODEL.ROI_HEADS.NUM_CLASSES 3"),
    Row(15, retinanet, "error", "MODEL.RETINANET.NUM_CLASSES: it is 4, .*has 3 classes"),
    Row(15, lambda data: (evaluated(data), head(80)(data)), "error", "'bad_val' has 3 classes"),
    Row(16, of_python(lambda d: [x["annotations"][0].update(category_id=3) for x in d]), "error",
        r"4 of 8 annotations whose category_id is not within 0..2: 3 \(in 4\)"),
    Row(16, of_python(lambda d: d[0]["annotations"][0].update(category_id=-1)), "error",
        r"not within 0..2: -1 \(in 1\)"),
    Row(16, of_python(lambda d: d[0]["annotations"][0].update(category_id=[1])), "error",
        r"not within 0..2: \[1\] \(in 1\)"),
    Row(17, one("annotations", bbox=[1, 2, float("nan"), 4]), "error",
        r"1 of 7 objects with a bbox that is not four finite .*annotation 11 \[1, 2, nan, 4"),
    Row(17, one("annotations", bbox=[1, 2, 3]), "error", r"not four finite .* \[1, 2, 3\]"),
    Row(17, one("annotations", bbox=[1, 2, 0, 4]), "warning",
        rf"zero or negative width or height.*: annotation 11 \[1, 2, 0, 4\]; .*{XYXY}"),
    Row(17, one("annotations", bbox=[9, 9, -3, 4]), "warning", r"negative .*\[9, 9, -3, 4\]"),
    Row(17, one("annotations", bbox=[90, 9, 3, 4]), "warning", r"wholly outside .*\[90, 9, 3, 4\]"),
    Row(17, one("annotations", bbox=[70, 9, 20, 4]), "warning", r"beyond the image .*\[70, 9, 20"),
    Row(17, each("bbox", [1, 2, 0, 0]), "error", r"no object can be learned \(see the other lines"),
    Row(17, of_python(lambda d: d[0]["annotations"][0].update(bbox=[9, 9, 5, 20])), "warning",
        r"negative width or height.*0.jpg object 0 \[9.0, 9.0, -4.0, 11.0\]"),
    Row(18, without("annotations", "bbox"), "error", "1 of 7 objects without bbox: annotation 11"),
    Row(18, of_python(lambda d: d[0]["annotations"][0].pop("bbox_mode")), "error",
        "not four finite numbers: /.*0.jpg object 0 .*of bbox_mode None"),
    Row(19, one("annotations", segmentation=[[1, 2, 3, 4]]), "warning",
        "1 of 7 objects with no polygon of three points, which are not learned .*annotation 11"),
    Row(19, each("segmentation", [[1, 2, 3, 4]]), "error", "no object .*see the other"),
    Row(19, one("annotations", segmentation=[[1, 2, 3, 4], [1, 2, 30, 2, 30, 40]]), "warning",
        "polygons of fewer than three points, which are left out: annotation 11"),
    Row(19, of_python(lambda d: d[0]["annotations"][0].update(segmentation=[[1, 2, 3, 4]])),
        "error", "no polygon of three points"),
    Row(20, without("annotations", "segmentation"), "error",
        r"without segmentation: annotation 11; MODEL.MASK_ON False, or a faster_\*.yaml"),
    Row(20, one("annotations", segmentation=[]), "error", "without segmentation"),
    Row(21, one("annotations", segmentation=RLE), "warning",
        "INPUT.MASK_FORMAT: it is 'polygon', but some masks are RLE; 'bitmask' is taken"),
    Row(21, one("annotations", segmentation={**RLE, "size": [80, 60]}), "error",
        "RLE mask of another size than the image: annotation 11"),
    Row(21, one("annotations", segmentation={**RLE, "counts": "not RLE"}), "error",
        "neither polygons nor RLE: annotation 11"),
    Row(22, one("images", width=81), "error",
        r"another width x height than is claimed: /.*1.jpg \(81 x 60, the file has 80 x 60\)"),
    Row(22, lambda data: [i.update(width=640, height=480) for i in data.content["images"]],
        "warning", "all images are stated as 640 x 480, which 4 files are not; .*constant"),
    Row(23, without("images", "width"), "error",
        "1 of 4 images without width and height: image 1; .*--repair NEW"),
    Row(24, turned, "error", r"before their EXIF .*1.jpg \(80 x 60, the file has 60 x 80\)"),
    Row(25, truncated, "error", r"1 of 4 images unreadable: /.*1.jpg \(.*truncated"),
    Row(25, lambda data: (truncated(data), data.opts.extend(["DATALOADER.MAX_UNREADABLE", "0.3"])),
        "warning", r"1 of 4 images unreadable: /.*1.jpg \(.*MAX_UNREADABLE 0.3 is the share"),
    Row(26, lambda data: data.file(1).write_bytes(b""), "error", r"unreadable: .*jpg \(0 bytes\)"),
    Row(26, lambda data: data.file(1).write_text("<html>"), "error",
        r"unreadable: /.*1.jpg \(no image of a kind that is read .*, 6 bytes\)"),
    Row(27, of_other_kinds, "fact", "converted to RGB: 1 CMYK, 1 grey, 1 RGBA; their alpha chan"),
    Row(28, deep, "error", r"1 of 4 images with more than 8 bits .*deep.png \(mode I;16\)"),
    Row(62, no_ground_truth(key=False), "warning", "val.json: there is no ground truth"),
    Row(62, no_ground_truth(key=True), "warning", r"no ground truth \(there are no annotations\)"),
    Row(62, lambda data: (data.register(thing_classes=None), evaluated(data)), "error",
        "'bad_val': its metadata have no thing_classes, which evaluation needs"),
    Row(62, lambda data: (data.register(lambda d: d[0].pop("image_id")), evaluated(data)), "error",
        "1 of 4 images without image_id: /.*0.jpg"),
    Row(63, bare, "warning", "7 of 7 annotations without area: annotation 1, annotation 11,"),
    Row(63, bare, "warning", "7 of 7 annotations without iscrowd: .*; 0 is taken"),
    Row(63, one("annotations", area="big"), "error", "area that is no number: annotation 11"),
    Row(63, one("annotations", iscrowd="0"), "error", "iscrowd other than 0 and 1: annotation 11"),
    Row(99, saved((3000, 1), "thin.png"), "error",
        r"1 of 4 images that a crop or a resize would make unusable: /.*thin.png \(it is 3000 x 1, "
        r"and thinner than a pixel if it fits INPUT.MAX_SIZE_TRAIN 1333\); cut them into shorter"),
    Row(99, saved((3000, 1), "thin.png", "DATALOADER.MAX_UNREADABLE", "0.3"), "warning",
        "1 of 4 images that a crop or a resize would make unusable"),
    Row(100, saved((80, 61), "large.png", "INPUT.MAX_IMAGE_PIXELS", "4800"), "error",
        "1 of 4 images too large: .*large.png .it is 80 x 61 and has more than .*; cut them into "
        "tiles, or set INPUT.MAX_IMAGE_PIXELS 4880"),
    Row(101, fifo, "error", r"1 of 4 images unreadable: /.*1.jpg \(it is a FIFO, not a file\)"),
    Row(102, lambda data: data.file(1).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "error",
        r"unreadable: /.*1.jpg \(no image of a kind that is read .*, 24 bytes\)"),
]  # fmt: skip
HARMLESS = {
    "98: a TIFF with an orientation": saved((80, 60), "1.tif", tiffinfo={274: 3}),
    "24: a turned image of the turned size": turned_rightly,
    "29: one image for a batch of 16": one_image,
    "a set of Python's": lambda data: data.register(),
    "a set of Python's in evaluation": lambda data: (data.register(), evaluated(data)),
    "no objects in one image": lambda data: data.content.update(annotations=data.annotations[1:]),
    "masks that a box detector does not need": lambda data: (
        one("annotations", segmentation=[])(data), data.opts.extend(["MODEL.MASK_ON", "False"])
    ),
}  # fmt: skip


@pytest.fixture
def data(coco_files):
    yield Data(*coco_files)
    for name in NAMES:
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_bad_data_is_told_before_a_run(row, data):
    row.change(data)
    cfg = data.config()
    found = [str(f) for f in dataset_findings(cfg) if f.severity == row.severity]
    assert re.search(row.said, "\n".join(found)), "\n".join(found)
    if row.severity == "error":
        with pytest.raises(ValueError, match=f"(?s){row.said}"):
            check_datasets(cfg)


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_good_data_is_no_error(change, data):
    change(data)
    check_datasets(data.config())


def test_all_errors_of_all_sets_are_in_one_message(data):
    evaluated(data)
    truncated(data)
    one("annotations", category_id=8)(data)
    with pytest.raises(ValueError) as error:
        check_datasets(data.config())
    message = str(error.value)
    assert message.startswith("4 things") and message.count("unreadable") == 2
    assert message.count("none of the categories") == 2


def test_rle_masks_make_the_mask_format_bitmask(data):
    one("annotations", segmentation=RLE)(data)
    cfg = data.config()
    check_datasets(cfg)
    assert cfg.INPUT.MASK_FORMAT == "bitmask"


def test_row_5_a_bare_name_for_a_list_of_data_sets_is_answered_with_the_list():
    with pytest.raises(ValueError, match=r"is written DATASETS.TRAIN \"\('my_set',\)\""):
        load_config("", ["DATASETS.TRAIN", "my_set"])


@pytest.mark.parametrize(("iterations", "warned"), [(90000, True), (100, False)])
def test_a_schedule_for_other_data_is_warned_of(iterations, warned, data):
    data.opts += ["SOLVER.MAX_ITER", str(iterations), "SOLVER.IMS_PER_BATCH", "16"]
    found = [str(f) for f in dataset_findings(data.config()) if f.where == "SOLVER.MAX_ITER"]
    said = "shows each of 4 training images 360,000 times"
    assert len(found) == warned and all(said in text for text in found)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_of_unreadable_images_that_is_none_is_refused(share, data):
    data.opts += ["DATALOADER.MAX_UNREADABLE", str(share)]
    with pytest.raises(ValueError, match=f"MAX_UNREADABLE: it is {share}; give the share"):
        check_datasets(data.config())


def test_the_real_coco_sample_has_no_error(samples):
    coco = samples / "coco"
    for name, split in zip(NAMES, ("train2017", "val2017"), strict=True):
        file = coco / f"annotations/instances_{split}.json"
        register_coco_instances(name, {}, str(file), str(coco / split))
    cfg = load_config("configs/risonet50_c4.yaml", [])
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = NAMES[:1], NAMES[1:]
    findings = dataset_findings(cfg, number=-1)
    for name in NAMES:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name)
    assert not [str(f) for f in findings if f.severity == "error"]
    assert any(f.what == "100 of 100 image files looked at" for f in findings)


def test_a_set_of_one_s_own_from_the_config_of_a_run_asks_for_its_flags(monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "list", lambda: ["voc_2012_train"])
    cfg = load_config("configs/risonet18_c4.yaml", ["DATASETS.TRAIN", "('own_train',)"])
    cfg.DATASETS.TEST = ()
    assert [x.remedy for x in dataset_findings(cfg, False) if "own_train" in x.what] == [
        "this run used your own data set: repeat --train-annotations and --train-images"
    ]
