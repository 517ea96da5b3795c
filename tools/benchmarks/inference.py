"""Inference of Mask R-CNN on R-ISONet-50, one image, against detectron2's R50 with FrozenBN."""

import argparse
import copy
from collections.abc import Callable, Iterator

import torch
from torch import nn

from d2_isonet.modeling.fusion import fuse_for_inference

from .detectors import build_pair, training_batch
from .measure import Comparison, seconds_in_turn


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """Whole detector and backbone alone, by head."""
    size = [96, 128] if options.quick else options.image_size
    image = training_batch(size, num_images=1)
    for head in options.head[:1] if options.quick else options.head:
        ours, peer = (model.eval() for model in build_pair(head, options))
        fused = fuse_for_inference(copy.deepcopy(ours))
        where = f"{head}, 1 image of {size[0]} x {size[1]}"
        for name, model, limit in ((where, ours, 0.97), (f"{where}, fused", fused, 0.90)):
            yield _row(name, _detect(model, image), _detect(peer, image), limit, options)
        x = ours.preprocess_image(image).tensor
        for name, model in ((f"{head}, backbone", ours), (f"{head}, backbone, fused", fused)):
            yield _row(name, _features(model, x), _features(peer, x), None, options)


def _row(name: str, ours: Callable, peer: Callable, limit, options) -> Comparison:
    seconds = seconds_in_turn(ours, peer, options.repetitions, options.device)
    return Comparison(name, *seconds, limit=limit)


def _detect(model: nn.Module, image: list[dict]) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        model(image)

    return run


def _features(model: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        model.backbone(x)

    return run
