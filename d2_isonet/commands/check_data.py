"""Filling in what a COCO json leaves out and what can be had without guessing."""

import argparse
import json
import os

from detectron2.config import CfgNode

from d2_isonet.config.loading import load_config
from d2_isonet.data.coco_json import fill_in, is_id, read_annotations
from d2_isonet.data.datasets import load_registered, register_coco_files, register_data_root
from d2_isonet.preflight.data.classified_images import classified_image_findings
from d2_isonet.preflight.data.coco_content import coco_entries
from d2_isonet.preflight.data.image_scan import look_at_all
from d2_isonet.preflight.data.sets import dataset_findings
from d2_isonet.preflight.findings import Finding
from d2_isonet.utils.messages import UserError


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


def findings_of(args: argparse.Namespace) -> list[Finding]:
    """The findings on the data that the arguments name: a config's, a COCO json's or a folder's.

    With --repair a json that lacks less is written, and what was done are the findings.

    Raises:
        UserError, FileNotFoundError: the arguments do not say which data.
    """
    if not (args.config_file or args.json or args.data_root):
        raise UserError("name the data: --config-file, --json and --images, or --data-root")
    if bool(args.json) != bool(args.images):
        raise UserError("--json and --images go together", "one is missing")
    if args.repair and (not args.json or os.path.exists(args.repair)):
        raise UserError("--repair needs --json, --images and the name of a file that is not there")
    cfg = load_config(args.config_file, args.opts)
    try:
        return _repaired(args) if args.repair else _findings_of(cfg, args)
    except UserError as error:
        return [Finding("error", "data", error.what, error.remedy)]


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
