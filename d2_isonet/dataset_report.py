"""What tools/check_dataset.py is asked for: which sets, how deep, and what is written."""

import argparse
import json
import os

from .annotation_repair import repair
from .annotations import read_annotations
from .classified_images import classified_image_findings
from .command_line import load_config
from .datasets import dataset_findings, register_coco_files
from .findings import Finding
from .image_catalog import load_registered, register_data_root


def findings_of(args: argparse.Namespace) -> list[Finding]:
    """The findings on the data that the arguments name: a config's, a COCO json's or a folder's.

    Raises:
        ValueError, FileNotFoundError: the arguments do not say which data, or it is not there.
    """
    if not (args.config_file or args.json or args.data_root):
        raise ValueError("name the data: --config-file, --json and --images, or --data-root")
    cfg = load_config(args.config_file, args.opts)
    number = cfg.DATASETS.CHECKED_IMAGES if args.quick else -1
    if args.data_root:
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ((x,) for x in register_data_root(args.data_root))
    elif args.json:
        _take_json(cfg, args)
    if args.data_root or cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        train = [] if args.eval_only else load_registered(cfg.DATASETS.TRAIN)[0]
        test = load_registered(cfg.DATASETS.TEST)[0] if cfg.DATASETS.TEST else []
        share = cfg.DATALOADER.MAX_UNREADABLE
        return classified_image_findings(train, test, number, share)
    return dataset_findings(cfg, args.eval_only, number)


def _take_json(cfg, args: argparse.Namespace) -> None:
    """Make --json and --images the set; without a config, its own classes are the head's."""
    _require_images(args.images)
    classes = register_coco_files("checked_set", args.json, args.images)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("checked_set",), ()
    if args.eval_only:
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), ("checked_set",)
    if not args.config_file:
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(classes)


def _require_images(images: str | None) -> None:
    if not images:
        raise ValueError("--json needs --images, the folder of its images")


def write_report(findings: list[Finding], file: str) -> None:
    """Write the findings as a json list of objects with the names of `Finding`."""
    with open(file, "w", encoding="utf-8") as opened:
        json.dump([finding._asdict() for finding in findings], opened, indent=1)


def repaired(json_file: str | None, images: str | None, new_file: str) -> str:
    """Write the annotations with what they lack filled in (see `repair`); say what was done.

    Raises:
        ValueError: there is no json or no folder given, or the new file is there already.
    """
    if not json_file:
        raise ValueError("--repair needs --json and --images")
    _require_images(images)
    if os.path.exists(new_file):
        raise ValueError(f"--repair: {os.path.abspath(new_file)} is there already; name a new file")
    content = read_annotations(json_file)
    done = repair(content, images) or ["nothing was to be filled in"]
    with open(new_file, "w", encoding="utf-8") as opened:
        json.dump(content, opened)
    return "\n".join([*done, f"written to {os.path.abspath(new_file)}"])
