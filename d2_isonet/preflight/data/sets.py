"""All checks of the data sets that a run asks for, before a model is built."""

import os
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from d2_isonet.data import coco_json
from d2_isonet.data.categories import head_section, number_of_classes
from d2_isonet.preflight.findings import Finding, check_once
from d2_isonet.utils.messages import UserError, nearest, some

from . import coco_content, objects
from .cache import PreflightCache, file_stamp
from .dicts import dict_entries, dict_findings
from .images import ImageEntry, duplicate_findings, image_findings, max_unreadable_findings

_TREE = (
    "set DETECTRON2_DATASETS to the folder that holds coco/annotations, coco/train2017 and "
    "coco/val2017, or give --train-json, --train-images, --val-json, --val-images"
)
_MOST_PASSES = 1000  # over the training images, above which a schedule must be an oversight
OWN_SETS = {  # name, in the config.yaml of a run, of the set that these flags gave it
    f"own_{split}": f"--{split}-json and --{split}-images" for split in ("train", "val")
}
# What is kept of a file is what these have said; changed, they may say other things.
_CHECKS = (coco_json, coco_content, objects)


class Demands(NamedTuple):
    """What a run needs of its data sets.

    Args:
        heads: the number of classes by the key that sets it.
        masks: whether every object needs a mask.
        number: images of each set that are looked at; -1 for all, 0 for none.
        max_unreadable: share of the training images that may be unreadable.
        images_seen: by the whole training, each as often as it comes; 0 where none is planned.
    """

    heads: dict[str, int]
    masks: bool = False
    number: int = -1
    max_unreadable: float = 0.0
    images_seen: int = 0


class CheckedSet(NamedTuple):
    """What is known of a data set after its check; `classes` None where it does not say."""

    findings: list[Finding]
    entries: list[ImageEntry] = []
    classes: list[str] | None = None
    has_rle: bool = False


def check_sets(
    train: Sequence[str], test: Sequence[str], demands: Demands
) -> tuple[list[Finding], bool]:
    """The findings on the sets of those names, and whether a training set has RLE masks."""
    checked = {
        key: [check_set(key, name, demands) for name in names]
        for key, names in (("TRAIN", train), ("TEST", test))
    }
    findings = [f for sets in checked.values() for one in sets for f in one.findings]
    entries = {key: [e for one in sets for e in one.entries] for key, sets in checked.items()}
    if demands.number and all(entries.values()):
        findings += duplicate_findings(entries["TRAIN"], entries["TEST"], demands.number)
    findings += _schedule(len(entries["TRAIN"]), demands.images_seen)
    return findings, any(one.has_rle for one in checked["TRAIN"])


def _schedule(images: int, images_seen: int) -> list[Finding]:
    """A warning where the schedule is that of another, much larger data set."""
    passes = images_seen // max(1, images)
    if passes < _MOST_PASSES:
        return []
    what = f"the schedule shows each of {images} training images {passes:,} times; COCO's 12 times"
    remedy = "set MAX_ITER, STEPS and WARMUP_ITERS to what these data need (docs/own_data.md)"
    return [Finding("warning", "SOLVER.MAX_ITER", what, remedy)]


def check_set(key: str, name: str, demands: Demands) -> CheckedSet:
    """Check one set of cfg.DATASETS[key]: name, paths, annotations, classes, image files."""
    unknown = _unknown_name(key, name) or _missing_paths(name)
    if unknown:
        classes = _classes(name, MetadataCatalog.get(name).get("thing_classes"), demands)
        return CheckedSet([*unknown, *classes])
    metadata, trained = MetadataCatalog.get(name), key == "TRAIN"
    if metadata.get("evaluator_type") == "coco" and metadata.get("json_file"):
        checked = check_coco(metadata.json_file, metadata.image_root, demands.masks, trained)
    else:
        checked = _check_python(name, demands, trained)
    findings = [*checked.findings, *_classes(name, checked.classes, demands)]
    registered = metadata.get("thing_classes")
    known = registered is not None
    if known and checked.classes is not None and list(registered) != checked.classes:
        what = f"its json has the classes {some(checked.classes)}, it is registered with others"
        remedy = f"register it with those of the json, not with {some(registered)}"
        findings.append(Finding("error", f"data set {name!r}", what, remedy))
    if demands.number and checked.entries:
        share = demands.max_unreadable if trained else 0.0
        findings += image_findings(name, checked.entries, demands.number, share)
    return checked._replace(findings=findings)


def _unknown_name(key: str, name: str) -> list[Finding]:
    known = DatasetCatalog.list()
    if name in known:
        return []
    if name in OWN_SETS:
        remedy = f"a set of one's own: give {OWN_SETS[name]} again"
    else:
        near = nearest(name, known).removeprefix("; ")
        remedy = near or "register it, or import what registers it"
    return [Finding("error", f"DATASETS.{key}", f"unknown data set {name!r}", remedy)]


def _missing_paths(name: str) -> list[Finding]:
    metadata = MetadataCatalog.get(name)
    if metadata.get("json_file_is_made"):  # from the set's own dicts, for its evaluation
        return []
    missing = [
        f"{what} {os.path.abspath(path)}"
        for what in ("json_file", "image_root")
        if (path := metadata.get(what)) and "://" not in path and not os.path.exists(path)
    ]
    if not missing:
        return []
    return [Finding("error", f"data set {name!r}", f"{', '.join(missing)} not there", _TREE)]


def _classes(name: str, classes: list[str] | None, demands: Demands) -> list[Finding]:
    return [
        Finding(
            "error", key, f"it is {number}, but data set {name!r} has {len(classes)} classes "
            f"({some(classes)})", f"set {key} {len(classes)}",
        )
        for key, number in demands.heads.items()
        if classes is not None and len(classes) != number
    ]  # fmt: skip


def check_coco(json_file: str, image_root: str, masks: bool, trained: bool) -> CheckedSet:
    """Check a COCO json; what was found is kept until the file changes."""
    path = os.path.abspath(PathManager.get_local_path(json_file))
    key, stamp = f"{path}|{image_root}|{masks}|{trained}", file_stamp(path)
    key += "".join(f"|{file_stamp(str(module.__file__))}" for module in _CHECKS)
    with closing(PreflightCache()) as cache:
        kept = stamp and cache.get(key, stamp)
        if not kept:
            kept = _check_coco_content(path, image_root, masks, trained)
            if stamp:
                cache.put([(key, stamp, kept)])
    findings, entries, classes, has_rle = kept
    findings = [Finding(*f)._replace(items=tuple(f[4])) for f in findings]
    return CheckedSet(findings, [ImageEntry(*e) for e in entries], classes, has_rle)


def _check_coco_content(path: str, image_root: str, masks: bool, trained: bool) -> CheckedSet:
    try:
        content = coco_json.read_annotations(path)
    except UserError as error:
        return CheckedSet([Finding("error", "annotations", error.what, error.remedy)])
    findings, has_rle = coco_content.coco_findings(content, path, masks, trained)
    entries = coco_content.coco_entries(content, image_root)
    return CheckedSet(findings, entries, coco_json.class_names(content), has_rle)


def _check_python(name: str, demands: Demands, trained: bool) -> CheckedSet:
    dicts = DatasetCatalog.get(name)
    classes = MetadataCatalog.get(name).get("thing_classes")
    findings = []
    if classes is None and not trained:
        what = "its metadata have no thing_classes, which evaluation needs"
        remedy = f"MetadataCatalog.get({name!r}).thing_classes = [...]"
        findings = [Finding("error", f"data set {name!r}", what, remedy)]
    names = classes or [f"class {i}" for i in range(next(iter(demands.heads.values()), 0))]
    more, has_rle = dict_findings(dicts, name, names, demands.masks, trained)
    return CheckedSet(findings + more, dict_entries(dicts), classes, has_rle)


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
        UserError: a set is unknown, not there, not for the head, or cannot be trained on or
            evaluated; all errors of all sets in one message.
    """
    findings = check_once(lambda: dataset_findings(cfg, eval_only))
    if any(finding.where == _MASK_FORMAT for finding in findings):
        cfg.INPUT.MASK_FORMAT = "bitmask"
