"""Check a dataset before it costs time: annotations, image files, and whether they fit a config.

The exit code is 1 if a training would be stopped. A file is read once, until it changes.

Examples:
  d2-isonet check-data --config-file risonet50_c4
  d2-isonet check-data --annotations train.json --images images/
  d2-isonet check-data --annotations train.json --images images/ --repair repaired.json
  d2-isonet check-data --data-root imagenet
"""

import argparse
import json
import os

from d2_isonet.utils.messages import UserError

from .arguments import Parser


def argument_parser(program: str | None = None) -> Parser:
    usage = "--config-file FILE|--annotations FILE|--data-root DIR [options] [KEY VALUE ...]"
    parser = Parser("check-data", __doc__, program, usage=usage, check=_problem)
    add = parser.group("the data")
    add("--config-file FILE", "a yaml file or the name of a config, whose DATASETS are checked, or "
        "which the data below must fit (default: none)", "", required=False)  # fmt: skip
    add("--annotations FILE", "COCO json to check (default: none)", old=("--json",))
    add("--images DIR", "folder of its images (default: none)")
    add("--data-root DIR", "folder with train/<class>/ and val/<class>/ (default: none)")
    add("--eval-only", "check only what an evaluation needs")
    add("opts")
    check = parser.add_argument_group("the check")
    add = parser.group(check.add_mutually_exclusive_group())
    add("--full", "read every image (the default)")
    add("--quick", "read DATASETS.CHECKED_IMAGES, as a training does")
    add = parser.group(check)
    add("--json-report FILE", "write all findings, with all names, as json (default: no file)")
    add("--repair FILE", "only write the --annotations, with what can be filled in without "
        "guessing, to this new file (default: no file)")  # fmt: skip
    return parser


def _problem(args: argparse.Namespace) -> str:
    if not (args.config_file or args.annotations or args.data_root):
        return "name the data: --config-file, --annotations and --images, or --data-root"
    if bool(args.annotations) != bool(args.images):
        return "--annotations and --images go together; one is missing"
    if args.repair and (not args.annotations or os.path.exists(args.repair)):
        return "--repair needs --annotations, --images and the name of a file that does not exist"
    return ""


def main(arguments: list[str] | None = None) -> int:
    return argument_parser().run(check, arguments)


def check(args: argparse.Namespace) -> int:
    """Print the findings on the data that the arguments name; 1 if one of them is an error.

    With --repair they say what was filled in.
    """
    from d2_isonet.config.loading import load_config
    from d2_isonet.preflight.findings import Finding, findings_table

    cfg = load_config(args.config_file, args.opts)
    try:
        findings = _repair(args) if args.repair else _findings(cfg, args)
    except UserError as error:
        findings = [Finding("error", "data", error.what, error.remedy)]
    print(findings_table(findings))
    if args.json_report:
        with open(args.json_report, "w", encoding="utf-8") as opened:
            json.dump([finding._asdict() for finding in findings], opened, indent=1)
    return int(any(finding.severity == "error" for finding in findings))


def _findings(cfg, args: argparse.Namespace) -> list:
    """The findings on a config's datasets, a COCO json or a folder of classes."""
    from d2_isonet.data.datasets import load_registered, register_coco_files, register_data_root
    from d2_isonet.preflight.data.images import classified_image_findings
    from d2_isonet.preflight.data.sets import dataset_findings

    number = cfg.DATASETS.CHECKED_IMAGES if args.quick else -1
    if args.data_root:
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ((x,) for x in register_data_root(args.data_root))
    elif args.annotations:
        name = os.path.basename(args.annotations)
        classes = register_coco_files(name, args.annotations, args.images)
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ((), (name,)) if args.eval_only else ((name,), ())
        if not args.config_file:
            cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(classes)
            cfg.SOLVER.MAX_ITER = 0  # there is no schedule to check
    if args.data_root or cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        train = [] if args.eval_only else load_registered(cfg.DATASETS.TRAIN)[0]
        test = load_registered(cfg.DATASETS.TEST)[0] if cfg.DATASETS.TEST else []
        return classified_image_findings(cfg, train, test, number)
    return dataset_findings(cfg, args.eval_only, number)


def _repair(args: argparse.Namespace) -> list:
    """Write the annotations with ids, sizes of images, area and iscrowd; say what was filled in.

    If some ids are missing or occur twice, all annotations get new ones, 1 to N. Sizes are those of
    the files after their EXIF orientation is applied.
    """
    from d2_isonet.data.coco_json import fill_in, is_id, read_annotations
    from d2_isonet.preflight.findings import Finding

    content = read_annotations(args.annotations)
    annotations, done = content.get("annotations", []), []
    if len({a["id"] for a in annotations if is_id(a.get("id"))}) < len(annotations):
        for number, annotation in enumerate(annotations, 1):
            annotation["id"] = number
        done.append(f"{len(annotations)} annotations have new ids, 1 to {len(annotations)}")
    bare = [a for a in annotations if not {"iscrowd", "area"} <= a.keys() and a.get("bbox")]
    for annotation in bare:
        fill_in(annotation)
    if bare:
        done.append(f"{len(bare)} annotations have an area and iscrowd now")
    done += _fill_in_sizes(content["images"], args.images)
    with open(args.repair, "x", encoding="utf-8") as opened:
        json.dump(content, opened)
    return [Finding("fact", args.repair, x) for x in done or ["there was nothing to fill in"]]


def _fill_in_sizes(images: list[dict], image_root: str) -> list[str]:
    from d2_isonet.preflight.data.coco_content import coco_entries
    from d2_isonet.preflight.data.image_scan import look_at_all

    named = [image for image in images if isinstance(image.get("file_name"), str)]
    sizeless = [image for image in named if not {"width", "height"} <= image.keys()]
    entries = coco_entries({"images": sizeless}, image_root)
    looks = look_at_all(entry.path for entry in entries)
    number = 0
    for image, entry in zip(sizeless, entries, strict=True):
        if not looks[entry.path].error:
            image["width"], image["height"] = looks[entry.path].upright_size()
            number += 1
    return [f"{number} images have the width and height of their files now"] if sizeless else []
