"""Training steps with half precision, channels_last, recomputation and compilation, by their keys,
against the same step without.
"""

import argparse
from collections.abc import Callable, Iterator

import torch

from .detectors import build_detector, training_batch
from .measure import Comparison, peak_megabytes, seconds_in_turn
from .training import classifier_task, step

# What a row is called -> (precision, opts)
_KEYS = {
    "bfloat16": ("bfloat16", ()),
    "channels_last": ("float32", ("MODEL.BACKBONE.CHANNELS_LAST", "True")),
    "bfloat16, channels_last": ("bfloat16", ("MODEL.BACKBONE.CHANNELS_LAST", "True")),
    "checkpointing": ("float32", ("MODEL.BACKBONE.CHECKPOINTING", "True")),
    "compiled": ("float32", ("MODEL.BACKBONE.COMPILE", "True")),
}


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """Time and peak memory of Mask R-CNN DC5 and of the classifier, R-ISONet-50, penalty on."""
    for make_step in (_detector_step, _classifier_step):
        name, plain = make_step(options, "float32", ())
        for key, (precision, opts) in _KEYS.items():
            _, ours = make_step(options, precision, opts)
            yield from _rows(f"{name}, {key}", ours, plain, options)


def _rows(name: str, ours: Callable, plain: Callable, options) -> Iterator[Comparison]:
    losses = []
    for run in (ours, plain):
        torch.manual_seed(0)
        losses.append(run())
    seconds = seconds_in_turn(ours, plain, options.repetitions, options.device)
    note = "loss {:.4f} against {:.4f}".format(*losses)
    yield Comparison(f"{name}, time", *seconds, note=note)
    memory = [[peak_megabytes(run, options.device)] for run in (ours, plain)]
    yield Comparison(f"{name}, peak memory", *memory, unit="MB")


def _detector_step(options, precision: str, opts: tuple[str, ...]) -> tuple[str, Callable]:
    size = [64, 96] if options.quick else options.image_size
    model = build_detector("dc5", options, *opts)
    run = step(model, training_batch(size), penalty=True, precision=precision)
    return f"dc5, 2 images of {size[0]} x {size[1]}", run


def _classifier_step(options, precision: str, opts: tuple[str, ...]) -> tuple[str, Callable]:
    ((name, (model, batch)),) = classifier_task(options, *opts).items()
    return name, step(model, batch, penalty=True, precision=precision)
