"""Pretraining on classified images, and the backbone file that it writes for detectors."""

import argparse
import logging
import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import HookBase
from detectron2.utils import comm

from d2_isonet.checkpoint.checkpointer import describe, save_backbone
from d2_isonet.data.datasets import load_registered, register_data_root
from d2_isonet.data.imagenet import (
    build_image_test_loader,
    build_image_train_loader,
    classification_mapper,
)
from d2_isonet.data.loader import LoaderOptions
from d2_isonet.data.shards.index import ShardedImages
from d2_isonet.engine.hooks.averaging import averaging_of
from d2_isonet.evaluation.classification import ImageNetEvaluator
from d2_isonet.preflight.data.images import check_classified_images
from d2_isonet.utils.files import tolerate, write_when_possible
from d2_isonet.utils.messages import UserError

from .main import finish_setup
from .trainer import Trainer

logger = logging.getLogger(__name__)


class ClassificationTrainer(Trainer):
    """Trainer on classified images that writes backbone.pth beside its checkpoints."""

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        return build_image_train_loader(
            load_registered(cfg.DATASETS.TRAIN)[0],
            classification_mapper(cfg, is_train=True),
            LoaderOptions(
                cfg.SOLVER.IMS_PER_BATCH,
                num_workers=cfg.DATALOADER.NUM_WORKERS,
                seed=cfg.SEED if cfg.SEED >= 0 else None,
                max_unreadable=cfg.DATALOADER.MAX_UNREADABLE,
                shard_streams=cfg.DATALOADER.SHARD_STREAMS,
            ),
        )

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        return build_image_test_loader(
            load_registered(dataset_name)[0],
            classification_mapper(cfg, is_train=False),
            batch_size=cfg.TEST.CLASSIFICATION_BATCH_SIZE,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> ImageNetEvaluator:
        return ImageNetEvaluator(
            cfg.MODEL.CLASSIFIER.NUM_CLASSES,
            output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"),
            dataset_name=dataset_name,
            class_names=MetadataCatalog.get(dataset_name).get("classes") or (),
        )

    def hooks_after_evaluation(self) -> list[HookBase]:
        if not comm.is_main_process():
            return []
        return [BackboneWriter(self.cfg, self.cfg.SOLVER.CHECKPOINT_PERIOD)]


class BackboneWriter(HookBase):
    """Writes OUTPUT_DIR/backbone.pth every `period` iterations and at the end of the training.

    If the weights are averaged, backbone_ema.pth has the average and its accuracy.
    """

    def __init__(self, cfg: CfgNode, period: int):
        self.cfg = cfg
        self.period = period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.period == 0 and done < self.trainer.max_iter:
            with tolerate("backbone.pth", f"It is written again in {self.period} iterations"):
                self._write(done)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # not after a step that raised
            attempts = self.cfg.SOLVER.CHECKPOINT_MAX_FAILURES
            paths = write_when_possible(lambda: self._write(self.trainer.max_iter), attempts)
            logger.info(f"Pretrained backbone written to {paths}: use it as MODEL.WEIGHTS")

    def _write(self, iteration: int) -> str:
        """Write the files and return their paths."""
        networks = {"backbone.pth": self.trainer.checkpointer.model}  # without DDP
        averaging = averaging_of(self.trainer)
        if averaging is not None:
            networks["backbone_ema.pth"] = averaging.model
        results = getattr(self.trainer, "_last_eval_results", None) or {}
        accuracy = {k: float(v) for k, v in results.get("classification", {}).items()}
        paths = [os.path.join(self.cfg.OUTPUT_DIR, name) for name in networks]
        for path, network in zip(paths, networks.values(), strict=True):
            meta = {
                **describe(self.cfg),
                "num_classes": self.cfg.MODEL.CLASSIFIER.NUM_CLASSES,
                "accuracy": accuracy if path == paths[-1] else {},  # the average is evaluated
                "iteration": iteration,
            }
            save_backbone(path, network.get_submodule("backbone").state_dict(), meta)
        return " and ".join(paths)


def finish_pretraining_setup(cfg: CfgNode, args: argparse.Namespace) -> CfgNode:
    """Find the images, set the number of classes and the schedule from them, then `finish_setup`.

    Raises:
        FileNotFoundError: the folder tree is missing.
        UserError: its shape is wrong; the number of classes is not MODEL.CLASSIFIER.NUM_CLASSES
            (unless that is 0); images are unreadable, or INPUT.CLASSIFICATION cannot crop them.
    """
    if args.data_root:
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ((x,) for x in register_data_root(args.data_root))
    names = cfg.DATASETS.TEST if args.eval_only else cfg.DATASETS.TRAIN
    dicts, classes = load_registered(names)
    asked = cfg.MODEL.CLASSIFIER.NUM_CLASSES
    if asked not in (0, len(classes)):
        raise UserError(
            f"MODEL.CLASSIFIER.NUM_CLASSES is {asked}, but {names} has {len(classes)} classes",
            "set it to 0 to take the number from the data, or choose the right data",
        )
    cfg.MODEL.CLASSIFIER.NUM_CLASSES = len(classes)
    # mistakes in the validation set or the crops end the run now, not in hours
    test = dicts if args.eval_only else _validation_dicts(cfg, classes)
    check_classified_images(cfg, [] if args.eval_only else dicts, test)
    for is_train in (True, False):
        classification_mapper(cfg, is_train)
    cfg = finish_setup(cfg, args, num_training_images=len(dicts))
    images = cfg.SOLVER.IMS_PER_BATCH
    if images > len(dicts) and not args.eval_only:
        logger.warning(
            f"SOLVER.IMS_PER_BATCH is {images} and {names} has {len(dicts)} images: a batch shows "
            f"each about {images / len(dicts):.3g} times, and one iteration counts as an epoch"
        )
    return cfg


def _validation_dicts(cfg: CfgNode, classes: list[str]) -> list[dict] | ShardedImages:
    if not cfg.DATASETS.TEST:
        return []
    dicts, validation_classes = load_registered(cfg.DATASETS.TEST)
    if validation_classes != classes:
        raise UserError(
            f"{cfg.DATASETS.TEST} and {cfg.DATASETS.TRAIN} have different classes, so the numbers "
            "of their labels mean different things"
        )
    return dicts
