"""COCO-format data: registering a user's own, and finding out early what is wrong with a set."""

import difflib
import os

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from .annotations import check_annotations, class_names, read_annotations


def register_coco_files(
    name: str, json_file: str, image_root: str, masks: bool = False
) -> list[str]:
    """Register a COCO-format data set, again if need be, and return its class names in order.

    Args:
        masks: whether every object needs a segmentation.

    Raises:
        FileNotFoundError: the json, the folder or an image is not there.
        ValueError: see `read_annotations` and `check_annotations`.
    """
    content = read_annotations(json_file)
    if not os.path.isdir(image_root):
        raise FileNotFoundError(f"images: there is no folder {os.path.abspath(image_root)}")
    check_annotations(content, json_file, image_root, masks)
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_coco_instances(name, {}, json_file, image_root)
    MetadataCatalog.get(name).thing_classes = class_names(content)
    return class_names(content)


def check_datasets(cfg: CfgNode, eval_only: bool = False) -> None:
    """Raise one clear error where a set of cfg.DATASETS is unknown, not there, or not for the head.

    Args:
        eval_only: then DATASETS.TEST may not be empty, otherwise DATASETS.TRAIN.

    Raises:
        ValueError: no set, an unknown name, or a number of classes other than the head's.
        FileNotFoundError: the annotations or the image folder are missing.
    """
    needed = "TEST" if eval_only else "TRAIN"
    if not cfg.DATASETS[needed]:
        raise ValueError(f"DATASETS.{needed} is empty; name a data set, e.g. \"('my_set',)\"")
    for key in ("TEST",) if eval_only else ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            _check_name(key, name)
            _check_files(name)
            _check_classes(name, cfg)


def _check_name(key: str, name: str) -> None:
    known = DatasetCatalog.list()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"DATASETS.{key} names the unknown data set {name!r}{hint}")


def _check_files(name: str) -> None:
    metadata = MetadataCatalog.get(name)
    for attribute in ("json_file", "image_root"):
        path = metadata.get(attribute)
        if path and "://" not in path and not os.path.exists(path):
            raise FileNotFoundError(
                f"data set {name!r}: {attribute} {os.path.abspath(path)} does not exist. Set "
                "DETECTRON2_DATASETS to the folder that holds coco/annotations, coco/train2017 "
                "and coco/val2017, or give --train-json, --train-images, --val-json, --val-images"
            )


def _check_classes(name: str, cfg: CfgNode) -> None:
    classes = MetadataCatalog.get(name).get("thing_classes")
    heads = {"MODEL.ROI_HEADS.NUM_CLASSES": cfg.MODEL.ROI_HEADS.NUM_CLASSES}
    if cfg.MODEL.META_ARCHITECTURE == "RetinaNet":
        heads = {"MODEL.RETINANET.NUM_CLASSES": cfg.MODEL.RETINANET.NUM_CLASSES}
    for key, number in heads.items():
        if classes is not None and len(classes) != number:
            raise ValueError(
                f"{key} is {number}, but data set {name!r} has {len(classes)} classes "
                f"({', '.join(classes[:3])}, ...): set {key} {len(classes)}"
            )


def use_own_data(cfg: CfgNode, args) -> None:
    """Register --train-json ... --val-images and set cfg.DATASETS and the head's classes by them.

    Raises:
        ValueError: a json without its image folder or the other way round, nothing to train on,
            or training and validation categories that differ.
    """
    names, classes = {}, {}
    for key, split in (("TRAIN", "train"), ("TEST", "val")):
        json_file = getattr(args, f"{split}_json")
        image_root = getattr(args, f"{split}_images")
        if bool(json_file) != bool(image_root):
            raise ValueError(f"--{split}-json and --{split}-images go together; one is missing")
        if json_file:
            names[key] = f"own_{split}"
            classes[key] = register_coco_files(
                names[key], json_file, image_root, masks=cfg.MODEL.MASK_ON
            )
    if not names:
        return
    if "TRAIN" not in names and not args.eval_only:
        raise ValueError("--val-json without --train-json: add it, or --eval-only")
    if len(classes) == 2 and classes["TRAIN"] != classes["TEST"]:
        raise ValueError(
            f"--train-json has the categories {classes['TRAIN']}, --val-json {classes['TEST']}: "
            "they must be the same, in the same order of ids"
        )
    cfg.DATASETS.TRAIN = (names.get("TRAIN", names.get("TEST")),)
    cfg.DATASETS.TEST = (names["TEST"],) if "TEST" in names else ()
    number = len(next(iter(classes.values())))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = number
    cfg.MODEL.RETINANET.NUM_CLASSES = number


class NamingDatasetMapper(DatasetMapper):
    """detectron2's DatasetMapper whose errors name the image that cannot be used."""

    def __call__(self, dataset_dict: dict) -> dict:
        try:
            return super().__call__(dataset_dict)
        except OSError as error:  # Pillow's for truncated and unknown files, which name none
            raise ValueError(
                f"{dataset_dict['file_name']} cannot be read ({error}): replace the file, or take "
                "it out of the annotations"
            ) from error
