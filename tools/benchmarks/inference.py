"""Inference of Mask R-CNN on R-ISONet-50, one image, against detectron2's R50 with FrozenBN."""

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import nn

from benchmarks.detectors import HEADS, build_pair, training_batch
from benchmarks.measure import Comparison, seconds_in_turn


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """Whole detector and backbone alone, by head."""
    size = [96, 128] if options.quick else options.image_size
    image = training_batch(size, num_images=1)
    for head in HEADS[:1] if options.quick else HEADS:
        ours, peer = (model.eval() for model in build_pair(head, options))
        seconds = seconds_in_turn(
            _detect(ours, image), _detect(peer, image), options.repetitions, options.device
        )
        yield Comparison(f"{head}, 1 image of {size[0]} x {size[1]}", *seconds, limit=0.97)
        seconds = seconds_in_turn(
            _features(ours, image), _features(peer, image), options.repetitions, options.device
        )
        yield Comparison(f"{head}, its backbone alone", *seconds)


def _detect(model: nn.Module, image: list[dict]) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        model(image)

    return run


def _features(model: nn.Module, image: list[dict]) -> Callable[[], None]:
    x = model.preprocess_image(image).tensor

    @torch.no_grad()
    def run() -> None:
        model.backbone(x)

    return run
