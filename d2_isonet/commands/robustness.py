"""Measure a classifier's accuracy under FGSM and BIM, and the L2 effort needed to fool it.

It prints a table and writes robustness.json and robustness.png.

Examples:
  d2-isonet robustness --config-file imagenet/risonet18 \\
      --weights output/imagenet/risonet18/model_final.pth --eps 2 4 8
  d2-isonet robustness --config-file imagenet/risonet18 --weights model_final.pth \\
      --data-root FOLDER --source-config imagenet/resnet18 --source-weights resnet.pth
"""

import argparse
from pathlib import Path
from typing import Any

from d2_isonet.utils.command_line import require_packages
from d2_isonet.utils.messages import UserError

from .arguments import Parser, config_path


def argument_parser(program: str | None = None) -> Parser:
    usage = "--config-file FILE --weights FILE [options] [KEY VALUE ...]"
    parser = Parser("robustness", __doc__, program, usage=usage, check=_problem)
    add = parser.group("the network")
    add("--config-file FILE", "a yaml file, or the name of one such as imagenet/risonet18")
    add("--weights FILE")
    add("opts")
    add = parser.group("the attacks")
    add("--attacks {fgsm,bim} ...", "attacks to run (default: fgsm bim)", ["fgsm", "bim"])
    add("--eps PIXELS ...", "largest changes of a pixel, in values of 0-255 (default: 8)", [8.0])
    add("--step PIXELS", "step of bim, in values of 0-255 (default: 2.5 * eps / iterations)",
        type=float)  # fmt: skip
    add("--iterations N", "iterations of bim", 10)
    add("--source-weights FILE", "add black-box attacks, by the gradients of this network "
        "(default: none)")  # fmt: skip
    add("--source-config FILE", "its config (default: --config-file with the KEY VALUE pairs)")
    add = parser.group("the images")
    add("--data-root DIR", "folder with train/<class>/ and val/<class>/ (default: DATASETS.TEST)")
    add("--num-images N", "number of images of the validation set, chosen by --seed", 1000)
    add("--effort-images N", "number of images on which the L2 effort is measured; 0: none", 100,
        least=0)  # fmt: skip
    add("--seed SEED", "seed of the choice of images", 0)
    add("--output DIR", "folder for the files", "output/robustness")
    return parser


def _problem(args: argparse.Namespace) -> str:
    what = f"--source-config is {args.source_config} without --source-weights"
    remedy = "give the weights whose gradients a black-box attack takes, or neither"
    return f"{what}; {remedy}" if args.source_config and not args.source_weights else ""


def main(arguments: list[str] | None = None) -> int:
    return argument_parser().run(attack, arguments)


def attack(args: argparse.Namespace) -> None:
    """Attack the network, print the table and write the files."""
    require_packages("matplotlib", needed_by="the picture")
    try:
        Path(args.output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"--output {args.output}: {error.strerror}"
        raise UserError(what, "name a folder that can be written") from error
    measure(args)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Attack the network; print the table, write the files, return what the json holds."""
    from tqdm import tqdm

    from d2_isonet.config.loading import load_config
    from d2_isonet.data.datasets import register_data_root
    from d2_isonet.data.imagenet import build_image_test_loader, classification_mapper
    from d2_isonet.evaluation import robustness
    from d2_isonet.evaluation.gradient_masking import masking_signs
    from d2_isonet.reporting.robustness import format_results, write_report

    settings = robustness.attack_settings(args.attacks, args.eps, args.step, args.iterations)
    cfg = load_config(args.config_file, args.opts)
    if args.data_root:
        cfg.DATASETS.TEST = register_data_root(args.data_root)[1:]
    dicts, classes = robustness.choose_images(cfg.DATASETS.TEST, args.num_images, args.seed)
    model, source = robustness.load_classifier(cfg, args.weights, len(classes)), None
    if args.source_weights:
        file, opts = args.config_file, args.opts
        if args.source_config:
            file, opts = config_path(args.source_config), []
        source = robustness.load_source(file, opts, args.source_weights, cfg, len(classes))
    mapper, size = classification_mapper(cfg, is_train=False), cfg.TEST.CLASSIFICATION_BATCH_SIZE
    batches = build_image_test_loader(dicts, mapper, size, cfg.DATALOADER.NUM_WORKERS)
    progress = tqdm(batches, "attacking", unit="batch")
    try:
        results = robustness.evaluate_robustness(
            model, progress, settings, source, args.effort_images
        )
    except FloatingPointError as error:
        files = " or ".join(filter(None, (args.weights, args.source_weights)))
        raise UserError(f"{files}: {error}") from error
    results = {**vars(args), **results, "gradient_masking": masking_signs(results)}
    print(format_results(results))
    write_report(results, model, next(iter(batches)), classes, cfg.INPUT.FORMAT)
    return results
