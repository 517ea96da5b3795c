"""The loader that a detector is trained from."""

from collections.abc import Iterable

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)

from .unreadable_images import NamingDatasetMapper, build_tolerant_loader


def build_train_loader(cfg: CfgNode) -> Iterable[list[dict]]:
    """detectron2's loader of cfg.DATASETS.TRAIN, which bears DATALOADER.MAX_UNREADABLE images."""
    mapper, max_share = NamingDatasetMapper(cfg, True), cfg.DATALOADER.MAX_UNREADABLE
    if not max_share:
        return build_detection_train_loader(cfg, mapper=mapper)
    # Serialized once, for the loader and for the replacements.
    dicts = DatasetFromList(_load(cfg), copy=False)
    return build_tolerant_loader(
        lambda mapper: build_detection_train_loader(cfg, dataset=dicts, mapper=mapper),
        mapper,
        dicts,
        max_share,
    )


def _load(cfg: CfgNode) -> list[dict]:
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    return get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN,
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=keypoints,
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
    )
