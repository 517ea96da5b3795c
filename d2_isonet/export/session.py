"""One export: read the arguments, write the file, compare it with the original."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.benchmark import Timer
from tqdm import tqdm

from d2_isonet.config.loading import load_config
from d2_isonet.data.datasets import register_own_data
from d2_isonet.data.examples import Examples, find_examples
from d2_isonet.utils.files import bytes_of
from d2_isonet.utils.messages import UserError, show

from .comparison import TOLERANCES, compare, failures, format_summary, summarize, write_report
from .formats import write_export
from .loading import load_exported, load_model, variant
from .record import find_class_names, make_record
from .targets import SUFFIXES, check_format, choose_target, function_of


def export_and_compare(args: argparse.Namespace) -> list[str]:
    """Write the export that `args` describe, print how it differs, return what is wrong with it.

    Raises:
        UserError, FileNotFoundError: the arguments name a missing file or an impossible export.
    """
    cfg, folder = load_config(args.config_file, args.opts), Path(args.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output: {folder.absolute()} cannot be a folder: {error}") from error
    target = choose_target(cfg, args.target)
    check_format(target, args.format, args.precision, cfg.MODEL.ROI_HEADS.NAME)
    weights = args.weights or cfg.MODEL.WEIGHTS
    original, found = load_model(cfg, target, weights, args.trust_pickle)
    register_own_data(cfg)
    names, source_of_names = find_class_names(cfg, target, args.class_names, found, weights)
    examples = find_examples(cfg, args.images, args.num_images)
    model, fused = variant(original, args.fuse, args.precision)
    record = make_record(
        cfg, original, target, names, format=args.format, precision=args.precision, fused=fused,
        weights=Path(weights).name,
    )  # fmt: skip
    path = folder / f"{target}{SUFFIXES[args.format]}"
    write_export(model, record, examples.images, path)
    print(f"Written: {path}, {args.precision}, shifts folded: {'yes' if fused else 'no'}")
    show(f"Class names: {source_of_names}")
    show(f"Compared on {len(examples.images)} images {examples.source}")
    return _compare(original, path, record, examples, args)


def _compare(
    original: nn.Module, path: Path, record: dict, examples: Examples, args: argparse.Namespace
) -> list[str]:
    """Run original and file on the images, print and write the differences."""
    function, exported = function_of(original, record["target"]), load_exported(path, record)
    images = tqdm(examples.images, "comparing", unit="image", leave=False)
    summary = summarize([compare(function(x), exported(x), x, record) for x in images])
    seconds = _time(function, exported, examples.images[0], args.repetitions)
    tolerance = TOLERANCES[record["precision"]] if args.tolerance is None else args.tolerance
    sizes = {"weights": bytes_of(original.state_dict()), "export": path.stat().st_size}
    problems = failures(summary, tolerance)
    show(format_summary(summary, tolerance, seconds, sizes))
    write_report(
        path.with_name(f"{path.name}.comparison.json"),
        images=len(examples.images), source=examples.source, differences=summary, bytes=sizes,
        tolerance=tolerance, seconds=seconds, threads=torch.get_num_threads(), problems=problems,
    )  # fmt: skip
    return problems


def _time(function: Callable, exported: Callable, image, repetitions: int) -> dict[str, list]:
    """Seconds of each call. The calls alternate, so that a busy machine slows both."""
    sides, threads = {"exported": exported, "original": function}, torch.get_num_threads()
    timers = {
        name: Timer("run(image)", globals={"run": run, "image": image}, num_threads=threads)
        for name, run in sides.items()
    }
    for timer in timers.values():
        timer.timeit(2)  # TorchScript compiles itself in its second run
    rounds = [{name: x.timeit(1).mean for name, x in timers.items()} for _ in range(repetitions)]
    return {name: [seconds[name] for seconds in rounds] for name in sides}
