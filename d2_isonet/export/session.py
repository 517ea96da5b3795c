"""One export from its arguments to its verdict."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import nn
from torch.utils.benchmark import Timer

from d2_isonet.config.loading import load_config
from d2_isonet.data.examples import Examples, find_examples
from d2_isonet.utils.messages import UserError

from . import comparison as report
from . import formats as dynamic
from . import formats as traced
from .comparison import comparison_of
from .formats import quantize
from .loading import load_exported, load_model, variant
from .record import attach, find_class_names, make_record
from .targets import (
    SUFFIXES,
    check_format,
    check_traceable,
    choose_target,
    function_of,
    pixel_module,
)


def export_and_compare(args: argparse.Namespace) -> list[str]:
    """Write what `args` ask for, print how it differs; returns what is wrong with it.

    Raises:
        UserError, FileNotFoundError: `args` ask for what cannot be done; one line says why.
    """
    cfg, folder = load_config(args.config_file, args.opts), _folder(args.output)
    target = choose_target(cfg, args.target)
    check_format(target, args.format, args.precision)
    check_traceable(cfg, target, args.format)
    weights = args.weights or cfg.MODEL.WEIGHTS
    names, source_of_names = find_class_names(cfg, target, args.class_names)
    original = load_model(cfg, target, weights, args.trust_pickle)
    examples = find_examples(cfg, args.images, args.num_images)
    model, fused = variant(original, args.fuse, args.precision)
    record = make_record(
        cfg, original, target, names, format=args.format, precision=args.precision, fused=fused,
        weights=Path(weights).name,
    )  # fmt: skip
    path = folder / f"{target}{SUFFIXES[args.format]}"
    write_export(model, record, examples.images, path)
    print(f"Written: {path}, {args.precision}, shifts folded: {'yes' if fused else 'no'}")
    print(f"Class names: {source_of_names}")
    print(f"Compared on {len(examples.images)} images {examples.source}")
    return compare_and_report(cfg, original, path, record, examples, args)


def _folder(output: str) -> Path:
    """Made before anything takes time."""
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output: {Path(output).absolute()} can be no folder: {error}") from error
    return Path(output)


def write_export(model: nn.Module, record: dict, images: list[torch.Tensor], path: Path) -> None:
    """Write the file that `record` describes, and the record.

    Args:
        images: the first is the example that is traced; all calibrate int8.
    """
    target, file_format = record["target"], record["format"]
    if target == "detector":
        if file_format == "torchscript":
            traced.write_torchscript(model, images[0], path, record)
        else:
            traced.write_traced_onnx(model, images[0], path)
    else:
        module = pixel_module(model, target)
        if file_format == "pt2":
            dynamic.write_program(module, path, record)
        else:
            dynamic.write_onnx(module, path)
    if record["precision"] == "int8":
        quantize(path, images, target)
    attach(path, record)


def compare_and_report(
    cfg: CfgNode,
    original: nn.Module,
    path: Path,
    record: dict,
    examples: Examples,
    args: argparse.Namespace,
) -> list[str]:
    """Run original and file on the images, print and write the differences."""
    function, exported = function_of(original, record["target"]), load_exported(path, record)
    heads = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE
    compare = comparison_of(record["target"], *heads)
    images = report.progress(examples.images, "comparing")
    summary = report.summarize([compare(function(x), exported(x), x) for x in images])
    seconds = _time(function, exported, examples.images[0], args.repetitions)
    default = report.TOLERANCES[record["precision"]]
    tolerance = default if args.tolerance is None else args.tolerance
    sizes = {"weights": _size_of_weights(original), "export": path.stat().st_size}
    problems = report.failures(summary, tolerance)
    print(report.format_summary(summary, tolerance, seconds, sizes))
    report.write_report(
        path.with_name(f"{path.name}.comparison.json"),
        images=len(examples.images), source=examples.source, differences=summary, bytes=sizes,
        tolerance=tolerance, seconds=seconds, threads=torch.get_num_threads(), problems=problems,
    )  # fmt: skip
    return problems


def _time(function: Callable, exported: Callable, image, repetitions: int) -> dict[str, list]:
    """Seconds of each call, the two sides in turn: what slows the machine slows both."""
    sides, threads = {"exported": exported, "original": function}, torch.get_num_threads()
    timers = {
        name: Timer("run(image)", globals={"run": run, "image": image}, num_threads=threads)
        for name, run in sides.items()
    }
    for timer in timers.values():
        timer.timeit(2)  # TorchScript compiles itself in its second run
    seconds: dict[str, list] = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, timer in timers.items():
            seconds[name].append(timer.timeit(1).mean)
    return seconds


def _size_of_weights(model: nn.Module) -> int:
    return sum(x.numel() * x.element_size() for x in model.state_dict().values())
