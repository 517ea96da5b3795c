"""Checks before a pretraining that its images are there and can be read."""

from collections.abc import Sequence

from detectron2.config import CfgNode

from d2_isonet.data.shards.index import ShardedImages
from d2_isonet.preflight.findings import Finding, check_once

from .dicts import dict_entries
from .images import duplicate_findings, image_findings, max_unreadable_findings

Images = Sequence[dict] | ShardedImages


def classified_image_findings(
    train: Images, test: Images, number: int = -1, max_unreadable: float = 0.0
) -> list[Finding]:
    """What is wrong with the files of the two sets, each of which may be empty.

    Shards are left out: their checksums are compared when they are read.

    Args:
        number: images of each set that are read; -1 for all, 0 for none.
        max_unreadable: share of the training images that may be unreadable.
    """
    sets = {"DATASETS.TRAIN": dict_entries(train), "DATASETS.TEST": dict_entries(test)}
    findings = []
    for where, entries in sets.items():
        share = max_unreadable if where == "DATASETS.TRAIN" else 0.0
        if number and entries:
            findings += image_findings(where, entries, number, share, turns=False)
    if number and all(sets.values()):
        training, validation = sets.values()
        findings += duplicate_findings(training, validation, number)
    return findings


def check_classified_images(cfg: CfgNode, train: Images, test: Images) -> None:
    """Print the findings on the images that a run with `cfg` reads.

    Raises:
        UserError: more than DATALOADER.MAX_UNREADABLE of the training images cannot be read, or
            any image for evaluation.
    """
    number, share = cfg.DATASETS.CHECKED_IMAGES, cfg.DATALOADER.MAX_UNREADABLE
    check_once(
        lambda: [
            *max_unreadable_findings(cfg),
            *_share_of_shards(train, share),
            *classified_image_findings(train, test, number, share),
        ]
    )


def _share_of_shards(train: Images, share: float) -> list[Finding]:
    if not share or not isinstance(train, ShardedImages):
        return []
    what = f"it is {share:g}, but image shards have no others to take for unreadable images"
    return [Finding("error", "DATALOADER.MAX_UNREADABLE", what, "set it to 0")]
