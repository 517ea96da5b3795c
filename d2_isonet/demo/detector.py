"""The detector of a demo: its config, its weights, and the names of its classes."""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances

from d2_isonet.checkpoint.checkpointer import require_file
from d2_isonet.config.loading import fall_back_to_cpu, load_config
from d2_isonet.data.categories import Categories, categories_of_json, check_named_classes
from d2_isonet.data.coco_json import read_annotations
from d2_isonet.engine.predictor import Predictor
from d2_isonet.modeling.fusion import fuse_for_inference
from d2_isonet.preflight.training import check_device
from d2_isonet.utils.messages import UserError, show

_NO_DETECTORS = ("ImageClassifier", "SemanticSegmentor", "ProposalNetwork")


class Detector(NamedTuple):
    """A Predictor of a model that returns "instances", and the names and ids of its classes."""

    predictor: Predictor
    categories: Categories

    def instances(self, images: Sequence[np.ndarray]) -> list[Instances | ValueError]:
        """The objects in each image (H, W, 3), BGR, on the CPU; the error of a refused image."""
        try:
            return [output["instances"].to("cpu") for output in self.predictor.predict(images)]
        except UserError as error:
            if len(images) == 1:
                return [error]
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{len(images)} images at once are too many for the memory of the GPU",
                "give a smaller --batch-size, a smaller INPUT.MAX_SIZE_TEST, or MODEL.DEVICE cpu",
            ) from error
        return [self.instances([image])[0] for image in images]


def read_config(args: argparse.Namespace, least_score: float) -> CfgNode:
    """The config of the detector, with all checks that need no model.

    Args:
        least_score: detections below it are dropped.

    Raises:
        FileNotFoundError, UserError: a file is missing, or the config describes no detector.
    """
    cfg = load_config(args.config_file, args.opts)
    if cfg.MODEL.META_ARCHITECTURE in _NO_DETECTORS:
        found = f"(MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE!r})"
        what = f"{args.config_file} describes no detector {found}"
        raise UserError(what, "the demo needs a model with boxes")
    require_file(args.weights)
    cfg.MODEL.WEIGHTS = args.weights
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = least_score
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = least_score
    if fall_back_to_cpu(cfg):
        print("There is no CUDA device: running on the CPU", flush=True)
    check_device(cfg)
    return cfg


def load_detector(cfg: CfgNode, args: argparse.Namespace) -> Detector:
    """The detector with its weights, on the device of `cfg`.

    Raises:
        FileNotFoundError, UserError: the weights do not fit, the annotations have other classes,
            or --fuse is given for a network that cannot be fused.
    """
    if args.threads:
        torch.set_num_threads(args.threads)
    predictor = Predictor(cfg, args.trust_pickle)
    categories = predictor.categories
    if args.annotations:
        categories = _named_by(args.annotations, categories, args.weights)
    if args.fuse:
        fuse_for_inference(predictor.model)
    _print_summary(cfg, args, categories)
    return Detector(predictor, categories)


def _named_by(annotations: str, found: Categories, weights: str) -> Categories:
    """The classes with the names and ids of a COCO file, which must not contradict the weights.

    `found` are the classes of the detector. They are certain only if the weights name them.
    """
    asked = categories_of_json(read_annotations(annotations), annotations)
    check_named_classes(f"--annotations: {annotations}", asked.names, found, weights)
    return asked


def _print_summary(cfg: CfgNode, args: argparse.Namespace, categories: Categories) -> None:
    unknown = "only numbered: neither weights nor config name them (--annotations does)"
    names = f"named by {categories.source}" if categories.source else unknown
    on_cpu, network = cfg.MODEL.DEVICE == "cpu", cfg.MODEL.ISONET
    device = f"cpu, {torch.get_num_threads()} threads" if on_cpu else cfg.MODEL.DEVICE
    show(f"{args.weights}: {len(categories.names)} classes, {names}; device {device}")
    can_be_fused = (
        cfg.MODEL.BACKBONE.NAME.startswith("build_isonet")
        and (network.ACTIVATION, network.CONV, network.BLOCK) == ("SReLU", "Conv2d", "residual")
        and not cfg.MODEL.RESNETS.NORM
    )
    if on_cpu and can_be_fused and not args.fuse:
        print("Hint: --fuse finds the same objects in less time on a CPU", flush=True)
