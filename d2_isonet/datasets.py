"""COCO-format data: registering a user's own, and finding out early what is wrong with a set."""

from detectron2.config import CfgNode

from d2_isonet.data.categories import head_section, number_of_classes

from .dataset_preflight import Demands, check_sets
from .findings import Finding
from .image_findings import max_unreadable_findings
from .main_process import check_once


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
