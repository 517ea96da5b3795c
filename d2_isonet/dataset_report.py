"""What tools/check_dataset.py is asked for: which sets, how deep, and what is written."""

import argparse
import json
import os

from detectron2.config import CfgNode

from d2_isonet.config.loading import load_config
from d2_isonet.data.coco_json import read_annotations
from d2_isonet.data.datasets import load_registered, register_coco_files, register_data_root
from d2_isonet.preflight.data.classified_images import classified_image_findings
from d2_isonet.preflight.data.sets import dataset_findings
from d2_isonet.preflight.findings import Finding

from .annotation_repair import repair


def findings_of(args: argparse.Namespace) -> list[Finding]:
    """The findings on the data that the arguments name: a config's, a COCO json's or a folder's.

    With --repair a json that lacks less is written, and what was done are the findings.

    Raises:
        ValueError, FileNotFoundError: the arguments do not say which data.
    """
    if not (args.config_file or args.json or args.data_root):
        raise ValueError("name the data: --config-file, --json and --images, or --data-root")
    if bool(args.json) != bool(args.images):
        raise ValueError("--json and --images go together; one is missing")
    if args.repair and (not args.json or os.path.exists(args.repair)):
        raise ValueError("--repair needs --json, --images and the name of a file that is not there")
    cfg = load_config(args.config_file, args.opts)
    try:
        return _repaired(args) if args.repair else _findings_of(cfg, args)
    except (ValueError, FileNotFoundError, NotADirectoryError) as error:
        return [Finding("error", "data", str(error))]


def _findings_of(cfg: CfgNode, args: argparse.Namespace) -> list[Finding]:
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


def _take_json(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Make --json and --images the set; without a config, its own classes are the head's."""
    name = os.path.basename(args.json)
    classes = register_coco_files(name, args.json, args.images)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ((), (name,)) if args.eval_only else ((name,), ())
    if not args.config_file:
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(classes)
        cfg.SOLVER.MAX_ITER = 0  # no schedule is asked for


def _repaired(args: argparse.Namespace) -> list[Finding]:
    content = read_annotations(args.json)
    done = repair(content, args.images) or ["nothing was to be filled in"]
    with open(args.repair, "x", encoding="utf-8") as opened:
        json.dump(content, opened)
    return [Finding("fact", args.repair, what) for what in done]


def write_report(findings: list[Finding], file: str) -> None:
    """Write the findings as a json list of objects with the names of `Finding`."""
    with open(file, "w", encoding="utf-8") as opened:
        json.dump([finding._asdict() for finding in findings], opened, indent=1)
