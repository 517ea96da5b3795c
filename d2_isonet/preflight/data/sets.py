"""Checks all data sets of a run before a model is built."""

import os
from contextlib import closing
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from d2_isonet.data import coco_json
from d2_isonet.data.categories import head_section, number_of_classes
from d2_isonet.preflight.findings import Finding, check_once
from d2_isonet.utils.messages import UserError, nearest, shortened

from . import coco_content, objects
from .cache import PreflightCache, file_stamp
from .dicts import dict_entries, dict_findings
from .images import ImageEntry, duplicate_findings, image_findings, max_unreadable_findings
from .objects import Demands

_TREE = (
    "set DETECTRON2_DATASETS to the folder that holds coco/annotations, coco/train2017 and "
    "coco/val2017, or give --train-annotations, --train-images, --val-annotations, --val-images"
)
_MOST_PASSES = 1000  # over the training images; a schedule with more must be an oversight
OWN_SETS = {  # the flags that give a set, by its name in the config.yaml of a run
    f"own_{split}": f"--{split}-annotations and --{split}-images" for split in ("train", "val")
}
# The cached findings on a file depend on the code of these modules.
_CHECKS = (coco_json, coco_content, objects)


class CheckedSet(NamedTuple):
    """What the check of a data set finds; `classes` is None if the set does not name them."""

    findings: list[Finding]
    entries: list[ImageEntry] = []
    classes: list[str] | None = None
    has_rle: bool = False


def _schedule(cfg: CfgNode, images: int) -> list[Finding]:
    """A warning if the schedule fits another, much larger data set."""
    passes = cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH // max(1, images)
    if passes < _MOST_PASSES:
        return []
    what = f"the schedule shows each of {images} training images {passes:,} times; COCO's 12 times"
    remedy = "set MAX_ITER, STEPS and WARMUP_ITERS to what these data need (docs/own_data.md)"
    return [Finding("warning", "SOLVER.MAX_ITER", what, remedy)]


def check_set(cfg: CfgNode, key: str, name: str, number: int) -> CheckedSet:
    """Check one set of cfg.DATASETS[key]: name, paths, annotations, classes, image files.

    Args:
        number: images that are read; -1 for all, 0 for none.
    """
    unknown = _unknown_name(key, name) or _missing_paths(name)
    metadata, trained = MetadataCatalog.get(name), key == "TRAIN"
    registered = metadata.get("thing_classes")
    if unknown:
        return CheckedSet([*unknown, *_classes(cfg, name, registered)])
    if metadata.get("evaluator_type") == "coco" and metadata.get("json_file"):
        demands = Demands(metadata.json_file, cfg.MODEL.MASK_ON, trained)
        checked = check_coco(demands, metadata.image_root)
    else:
        checked = _check_python(cfg, Demands(name, cfg.MODEL.MASK_ON, trained))
    classes = checked.classes
    findings = [*checked.findings, *_classes(cfg, name, classes)]
    if registered is not None and classes is not None and list(registered) != classes:
        what = f"its json has the classes {shortened(classes)}, it is registered with others"
        remedy = f"register it with those of the json, not with {shortened(registered)}"
        findings.append(Finding("error", f"data set {name!r}", what, remedy))
    if number and checked.entries:
        share = cfg.DATALOADER.MAX_UNREADABLE if trained else 0.0
        findings += image_findings(name, checked.entries, number, share)
    return checked._replace(findings=findings)


def _unknown_name(key: str, name: str) -> list[Finding]:
    known = DatasetCatalog.list()
    if name in known:
        return []
    if name in OWN_SETS:
        remedy = f"this run used your own data set: repeat {OWN_SETS[name]}"
    else:
        near = nearest(name, known).removeprefix("; ")
        remedy = near or "register it, or import what registers it"
    return [Finding("error", f"DATASETS.{key}", f"unknown data set {name!r}", remedy)]


def _missing_paths(name: str) -> list[Finding]:
    metadata = MetadataCatalog.get(name)
    if metadata.get("json_file_is_made"):  # from the dicts of the set, for its evaluation
        return []
    missing = [
        f"{what} {os.path.abspath(path)}"
        for what in ("json_file", "image_root")
        if (path := metadata.get(what)) and "://" not in path and not os.path.exists(path)
    ]
    if not missing:
        return []
    return [Finding("error", f"data set {name!r}", f"{', '.join(missing)} not there", _TREE)]


def _classes(cfg: CfgNode, name: str, classes: list[str] | None) -> list[Finding]:
    """An error if the head has another number of classes than the set names."""
    key, number = f"MODEL.{head_section(cfg)}.NUM_CLASSES", number_of_classes(cfg)
    if classes is None or len(classes) == number:
        return []
    what = (
        f"it is {number}, but data set {name!r} has {len(classes)} classes ({shortened(classes)})"
    )
    return [Finding("error", key, what, f"set {key} {len(classes)}")]


def check_coco(demands: Demands, image_root: str) -> CheckedSet:
    """Check the COCO json `demands.where`; the findings are cached until the file changes."""
    path = os.path.abspath(PathManager.get_local_path(demands.where))
    key, stamp = f"{path}|{image_root}|{demands.masks}|{demands.trained}", file_stamp(path)
    key += "".join(f"|{file_stamp(str(module.__file__))}" for module in _CHECKS)
    with closing(PreflightCache()) as cache:
        kept = stamp and cache.get(key, stamp)
        if not kept:
            kept = _check_coco_content(demands._replace(where=path), image_root)
            if stamp:
                cache.put([(key, stamp, kept)])
    findings, entries, classes, has_rle = kept
    findings = [Finding(*f)._replace(items=tuple(f[4])) for f in findings]
    return CheckedSet(findings, [ImageEntry(*e) for e in entries], classes, has_rle)


def _check_coco_content(demands: Demands, image_root: str) -> CheckedSet:
    try:
        content = coco_json.read_annotations(demands.where)
    except UserError as error:
        return CheckedSet([Finding("error", "annotations", error.what, error.remedy)])
    findings, has_rle = coco_content.coco_findings(content, demands)
    entries = coco_content.coco_entries(content, image_root)
    return CheckedSet(findings, entries, coco_json.class_names(content), has_rle)


def _check_python(cfg: CfgNode, demands: Demands) -> CheckedSet:
    name = demands.where
    dicts = DatasetCatalog.get(name)
    classes = MetadataCatalog.get(name).get("thing_classes")
    findings = []
    if classes is None and not demands.trained:
        what = "its metadata have no thing_classes, which evaluation needs"
        remedy = f"MetadataCatalog.get({name!r}).thing_classes = [...]"
        findings = [Finding("error", f"data set {name!r}", what, remedy)]
    names = classes or [f"class {i}" for i in range(number_of_classes(cfg))]
    more, has_rle = dict_findings(dicts, names, demands)
    return CheckedSet(findings + more, dict_entries(dicts), classes, has_rle)


def dataset_findings(
    cfg: CfgNode, eval_only: bool = False, number: int | None = None
) -> list[Finding]:
    """The findings on the sets of cfg.DATASETS, for the model and the options of cfg.

    Args:
        eval_only: then DATASETS.TEST may not be empty, otherwise DATASETS.TRAIN.
        number: images of each set that are read; None for DATASETS.CHECKED_IMAGES.
    """
    return _findings_and_mask_format(cfg, eval_only, number)[0]


def _findings_and_mask_format(
    cfg: CfgNode, eval_only: bool, number: int | None = None
) -> tuple[list[Finding], str]:
    """The findings, and the INPUT.MASK_FORMAT that can read all masks of the training sets."""
    number = cfg.DATASETS.CHECKED_IMAGES if number is None else number
    sets = {
        key: [check_set(cfg, key, name, number) for name in cfg.DATASETS[key]]
        for key in (("TEST",) if eval_only else ("TRAIN", "TEST"))
    }
    findings = [f for checked in sets.values() for one in checked for f in one.findings]
    entries = {key: [e for one in checked for e in one.entries] for key, checked in sets.items()}
    if not eval_only:
        if number and all(entries.values()):
            findings += duplicate_findings(entries["TRAIN"], entries["TEST"], number)
        findings += _schedule(cfg, len(entries["TRAIN"]))
    needed = "TEST" if eval_only else "TRAIN"
    if not cfg.DATASETS[needed]:
        remedy = "name a data set, e.g. \"('my_set',)\""
        findings.append(Finding("error", f"DATASETS.{needed}", "it is empty", remedy))
    mask_format = cfg.INPUT.MASK_FORMAT
    has_rle = any(one.has_rle for one in sets.get("TRAIN", []))
    if has_rle and cfg.MODEL.MASK_ON and mask_format == "polygon":
        mask_format = "bitmask"
        findings.append(Finding("warning", "INPUT.MASK_FORMAT", "it is 'polygon', but some masks "
                                "are RLE", "'bitmask' is taken, which reads both"))  # fmt: skip
    return findings + max_unreadable_findings(cfg), mask_format


def check_datasets(cfg: CfgNode, eval_only: bool = False) -> None:
    """Print the findings on the sets of cfg.DATASETS; set INPUT.MASK_FORMAT to fit their masks.

    The main process checks for all. Args: see `dataset_findings`.

    Raises:
        UserError: a set is unknown, missing, does not fit the head, or cannot be trained on or
            evaluated; all errors of all sets in one message.
    """
    mask_format = cfg.INPUT.MASK_FORMAT

    def check() -> list[Finding]:
        nonlocal mask_format
        findings, mask_format = _findings_and_mask_format(cfg, eval_only)
        return findings

    check_once(check)
    cfg.INPUT.MASK_FORMAT = comm.all_gather(mask_format)[0]
