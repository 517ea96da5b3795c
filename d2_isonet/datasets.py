"""COCO-format data: registering a user's own, and finding out early what is wrong with a set."""

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from .annotations import class_names, read_annotations
from .categories import head_section, number_of_classes
from .dataset_preflight import Demands, check_sets
from .findings import Finding
from .main_process import check_once
from .unreadable_images import max_unreadable_findings


def register_coco_files(name: str, json_file: str, image_root: str) -> list[str]:
    """Register a COCO-format data set, again if need be, and return its class names in order.

    Its annotations and images are checked by `check_datasets`.

    Raises:
        FileNotFoundError, ValueError: what `read_annotations` raises.
    """
    classes = class_names(read_annotations(json_file))
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_coco_instances(name, {}, json_file, image_root)
    MetadataCatalog.get(name).thing_classes = classes
    return classes


def dataset_findings(
    cfg: CfgNode, eval_only: bool = False, number: int | None = None
) -> list[Finding]:
    """What is wrong with the sets of cfg.DATASETS, for the model and the options of cfg.

    Args:
        eval_only: then DATASETS.TEST may not be empty, otherwise DATASETS.TRAIN.
        number: images of each set that are looked at; None for DATASETS.CHECKED_IMAGES.
    """
    demands = Demands(
        heads=_heads(cfg),
        masks=cfg.MODEL.MASK_ON,
        number=cfg.DATASETS.CHECKED_IMAGES if number is None else number,
        max_unreadable=cfg.DATALOADER.MAX_UNREADABLE,
        images_seen=0 if eval_only else cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH,
    )
    train, test = () if eval_only else cfg.DATASETS.TRAIN, cfg.DATASETS.TEST
    findings, has_rle = check_sets(train, test, demands)
    needed = "TEST" if eval_only else "TRAIN"
    if not cfg.DATASETS[needed]:
        remedy = "name a data set, e.g. \"('my_set',)\""
        findings.append(Finding("error", f"DATASETS.{needed}", "it is empty", remedy))
    if has_rle and cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT == "polygon":
        findings.append(Finding("warning", _MASK_FORMAT, "it is 'polygon', but some masks are RLE",
                                "'bitmask' is taken, which reads both"))  # fmt: skip
    return findings + max_unreadable_findings(cfg)


_MASK_FORMAT = "INPUT.MASK_FORMAT"


def _heads(cfg: CfgNode) -> dict[str, int]:
    return {f"MODEL.{head_section(cfg)}.NUM_CLASSES": number_of_classes(cfg)}


def check_datasets(cfg: CfgNode, eval_only: bool = False) -> None:
    """Print what is found in the sets of cfg.DATASETS; INPUT.MASK_FORMAT follows their masks.

    The main process looks for all. Args: see `dataset_findings`.

    Raises:
        ValueError: a set is unknown, not there, not for the head, or cannot be trained on or
            evaluated; all errors of all sets in one message.
    """
    findings = check_once(lambda: dataset_findings(cfg, eval_only))
    if any(finding.where == _MASK_FORMAT for finding in findings):
        cfg.INPUT.MASK_FORMAT = "bitmask"


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
            classes[key] = register_coco_files(names[key], json_file, image_root)
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
