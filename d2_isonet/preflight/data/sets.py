"""Checks all data sets of a run before a model is built."""

import os
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from d2_isonet.data import coco_json, masks
from d2_isonet.data.categories import head_section, number_of_classes
from d2_isonet.data.datasets import OWN_SETS, own_key
from d2_isonet.preflight.findings import Finding, check_once
from d2_isonet.utils.messages import UserError, nearest, shortened

from . import coco_content, consistency, density, images, objects
from .cache import PreflightCache, file_stamp
from .density import Numbers
from .dicts import dict_findings
from .objects import Demands
from .pixel_statistics import pixel_findings

_TREE = (
    "set DETECTRON2_DATASETS to the folder that holds coco/annotations, coco/train2017 and "
    "coco/val2017, or give --train-annotations, --train-images, --val-annotations, --val-images"
)
_MOST_PASSES = 1000  # over the training images; a schedule with more must be an oversight
# The cached findings on a file depend on the code of these modules.
_CHECKS = (coco_json, masks, coco_content, objects, consistency, density)


class CheckedSet(NamedTuple):
    """What the check of a data set finds; `classes` is None if the set does not name them."""

    findings: list[Finding]
    entries: list[images.ImageEntry] = []
    classes: list[str] | None = None
    has_rle: bool = False
    numbers: Numbers = Numbers()


Sets = dict[str, list[CheckedSet]]  # by the key of cfg.DATASETS; for an evaluation TEST alone


def check_datasets(cfg: CfgNode, eval_only: bool = False) -> None:
    """Print the findings on the sets of cfg.DATASETS; set INPUT.MASK_FORMAT to fit their masks.

    The main process checks for all. Args: see `dataset_findings`.

    Raises:
        UserError: a set is unknown, missing, does not fit the head, or cannot be trained on or
            evaluated; all errors of all sets in one message.
    """
    number, needs_bitmask = cfg.DATASETS.CHECKED_IMAGES, False

    def check() -> list[Finding]:
        nonlocal needs_bitmask
        sets = _check_sets(cfg, eval_only, number)
        needs_bitmask = _needs_bitmask(cfg, sets)
        return _all_findings(cfg, sets, number)

    check_once(check)
    if comm.all_gather(needs_bitmask)[0]:
        cfg.INPUT.MASK_FORMAT = "bitmask"


def dataset_findings(
    cfg: CfgNode, eval_only: bool = False, number: int | None = None
) -> list[Finding]:
    """The findings on the sets of cfg.DATASETS, for the model and the options of cfg.

    Args:
        eval_only: then DATASETS.TEST may not be empty, otherwise DATASETS.TRAIN.
        number: images of each set that are read; None for DATASETS.CHECKED_IMAGES.
    """
    number = cfg.DATASETS.CHECKED_IMAGES if number is None else number
    return _all_findings(cfg, _check_sets(cfg, eval_only, number), number)


def _check_sets(cfg: CfgNode, eval_only: bool, number: int) -> Sets:
    keys = ("TEST",) if eval_only else ("TRAIN", "TEST")
    return {key: [check_set(cfg, key, x, number) for x in cfg.DATASETS[key]] for key in keys}


def _all_findings(cfg: CfgNode, sets: Sets, number: int) -> list[Finding]:
    """The findings on each set, then those on all sets together."""
    train, val = (
        [e for one in sets.get(key, ()) for e in one.entries] for key in ("TRAIN", "TEST")
    )
    return [
        *(finding for checked in sets.values() for one in checked for finding in one.findings),
        *images.duplicate_findings(train, val, number),
        *(_schedule(cfg, len(train)) if "TRAIN" in sets else ()),
        *_empty(cfg, next(iter(sets))),
        *_classes_of_all(cfg, sets),
        *_mask_format(cfg, sets),
        *images.max_unreadable_findings(cfg.DATALOADER.MAX_UNREADABLE),
    ]


def _schedule(cfg: CfgNode, number: int) -> Iterator[Finding]:
    """A warning if the schedule fits another, much larger data set."""
    passes = cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH // max(1, number)
    what = f"the schedule shows each of {number} training images {passes:,} times; COCO's 12 times"
    remedy = "set MAX_ITER, STEPS and WARMUP_ITERS to what these data need (docs/own_data.md)"
    if passes >= _MOST_PASSES:
        yield Finding("warning", "SOLVER.MAX_ITER", what, remedy)


def _empty(cfg: CfgNode, key: str) -> Iterator[Finding]:
    remedy = "name a data set, e.g. \"('my_set',)\""
    if not cfg.DATASETS[key]:
        yield Finding("error", f"DATASETS.{key}", "it is empty", remedy)


def _classes_of_all(cfg: CfgNode, sets: Sets) -> Iterator[Finding]:
    """An error for each set whose classes differ from those of the first set."""
    checked = [x for key in sets for x in zip(cfg.DATASETS[key], sets[key], strict=True)]
    named = [(name, list(x.classes)) for name, x in checked if x.classes is not None]
    for name, classes in named[1:]:
        first, expected = named[0]
        if classes != expected:
            what = f"it has the classes {shortened(classes)}, and {first!r} {shortened(expected)}"
            remedy = "they must be the same, in the same order (of a json's ids)"
            yield Finding("error", f"data set {name!r}", what, remedy)


def _mask_format(cfg: CfgNode, sets: Sets) -> Iterator[Finding]:
    what, remedy = "it is 'polygon', but some masks are RLE", "'bitmask' is taken, which reads both"
    if _needs_bitmask(cfg, sets):
        yield Finding("warning", "INPUT.MASK_FORMAT", what, remedy)


def _needs_bitmask(cfg: CfgNode, sets: Sets) -> bool:
    """Whether INPUT.MASK_FORMAT cannot read all masks of the training sets."""
    has_rle = any(one.has_rle for one in sets.get("TRAIN", ()))
    return has_rle and cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT == "polygon"


def check_set(cfg: CfgNode, key: str, name: str, number: int) -> CheckedSet:
    """Check one set of cfg.DATASETS[key]: name, paths, annotations, classes, image files.

    Args:
        number: images that are read; -1 for all, 0 for none.
    """
    metadata, trained = MetadataCatalog.get(name), key == "TRAIN"
    if name not in DatasetCatalog.list():
        checked = CheckedSet([_unknown_name(cfg, key, name)], classes=metadata.get("thing_classes"))
    elif missing := _missing_paths(name):
        checked = CheckedSet(missing, classes=metadata.get("thing_classes"))
    elif metadata.get("evaluator_type") == "coco" and metadata.get("json_file"):
        checked = check_coco(_demands(cfg, metadata.json_file, trained), metadata.image_root)
    else:
        checked = _check_python(cfg, _demands(cfg, name, trained))
    share = cfg.DATALOADER.MAX_UNREADABLE if trained else 0.0
    findings = [
        *checked.findings,
        *_number_of_classes(cfg, name, checked.classes),
        *_registered_classes(name, checked.classes),
        *density.density_findings(cfg, name, checked.numbers, trained),
        *images.image_findings(
            name, checked.entries, number, share, images.detection_reader(cfg, trained)
        ),
        *pixel_findings(cfg, name, checked.entries if number else []),
    ]
    return checked._replace(findings=findings)


def _demands(cfg: CfgNode, where: str, trained: bool) -> Demands:
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS if cfg.MODEL.KEYPOINT_ON else 0
    return Demands(where, cfg.MODEL.MASK_ON, trained, keypoints)


def _unknown_name(cfg: CfgNode, key: str, name: str) -> Finding:
    near = nearest(name, DatasetCatalog.list()).removeprefix("; ")
    remedy = near or "register it, or import what registers it"
    what = f"unknown data set {name!r}"
    if name in OWN_SETS:
        flags, paths = " and ".join(OWN_SETS[name]), cfg.DATASETS[own_key(name)]
        remedy = f"this run used your own data set: repeat {flags}"
        if paths:  # in the config.yaml of a run, whose data have moved since
            what, remedy = f"{name!r}: there is no file {paths[0]}", f"give its place by {flags}"
    return Finding("error", f"DATASETS.{key}", what, remedy)


def _missing_paths(name: str) -> list[Finding]:
    metadata = MetadataCatalog.get(name)
    if metadata.get("json_file_is_made"):  # from the dicts of the set, for its evaluation
        return []
    paths = {key: metadata.get(key) for key in ("json_file", "image_root")}
    missing = [
        f"{key} {os.path.abspath(path)}"
        for key, path in paths.items()
        if path and "://" not in path and not os.path.exists(path)
    ]
    what = f"{', '.join(missing)} not there"
    return [Finding("error", f"data set {name!r}", what, _TREE)] if missing else []


def _number_of_classes(cfg: CfgNode, name: str, classes: list[str] | None) -> Iterator[Finding]:
    """An error if the head has another number of classes than the set names."""
    key, number = f"MODEL.{head_section(cfg)}.NUM_CLASSES", number_of_classes(cfg)
    if classes is not None and len(classes) != number:
        of_set = f"data set {name!r} has {len(classes)} classes ({shortened(classes)})"
        yield Finding("error", key, f"it is {number}, but {of_set}", f"set {key} {len(classes)}")


def _registered_classes(name: str, classes: list[str] | None) -> Iterator[Finding]:
    registered = MetadataCatalog.get(name).get("thing_classes")
    if registered is not None and classes is not None and list(registered) != list(classes):
        what = f"its json has the classes {shortened(classes)}, it is registered with others"
        remedy = f"register it with those of the json, not with {shortened(registered)}"
        yield Finding("error", f"data set {name!r}", what, remedy)


def check_coco(demands: Demands, image_root: str) -> CheckedSet:
    """Check the COCO json `demands.where`; the findings are cached until the file changes."""
    path = os.path.abspath(PathManager.get_local_path(demands.where))
    key, stamp = f"{path}|{image_root}|{demands[1:]}", file_stamp(path)
    key += "".join(f"|{file_stamp(str(module.__file__))}" for module in _CHECKS)
    with closing(PreflightCache()) as cache:
        kept = cache.get(key, stamp)
        if not kept:
            kept = _check_coco_content(demands._replace(where=path), image_root)
            cache.put([(key, stamp, kept)])
    findings, entries, classes, has_rle, numbers = kept
    findings = [Finding(*f)._replace(items=tuple(f[4])) for f in findings]
    entries = [images.ImageEntry(*e) for e in entries]
    return CheckedSet(findings, entries, classes, has_rle, Numbers(*numbers))


def _check_coco_content(demands: Demands, image_root: str) -> CheckedSet:
    try:
        content = coco_json.read_annotations(demands.where)
    except UserError as error:
        return CheckedSet([Finding("error", "annotations", error.what, error.remedy)])
    findings, has_rle, numbers = coco_content.coco_findings(content, demands)
    entries = coco_content.coco_entries(content, image_root)
    return CheckedSet(findings, entries, coco_json.class_names(content), has_rle, numbers)


def _check_python(cfg: CfgNode, demands: Demands) -> CheckedSet:
    name = demands.where
    dicts = DatasetCatalog.get(name)
    classes = MetadataCatalog.get(name).get("thing_classes")
    names = classes or [f"class {i}" for i in range(number_of_classes(cfg))]
    findings, has_rle, numbers = dict_findings(dicts, names, demands)
    if classes is None and not demands.trained:
        what = "its metadata have no thing_classes, which evaluation needs"
        remedy = f"MetadataCatalog.get({name!r}).thing_classes = [...]"
        findings.insert(0, Finding("error", f"data set {name!r}", what, remedy))
    return CheckedSet(findings, images.dict_entries(dicts), classes, has_rle, numbers)
