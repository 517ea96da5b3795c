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
from typing import TYPE_CHECKING, Any

from d2_isonet.utils.command_line import require_packages
from d2_isonet.utils.messages import UserError, readable_errors

from .arguments import Parser, add_pairs, config_path

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from d2_isonet.modeling.classifier import ImageClassifier


def argument_parser(program: str | None = None) -> Parser:
    usage = "--config-file FILE --weights FILE [options] [KEY VALUE ...]"
    parser = Parser("robustness", __doc__, program, usage=usage)
    add = parser.add_argument_group("the network").add_argument
    add("--config-file", required=True, metavar="FILE",
        help="a yaml file, or the name of one such as imagenet/risonet18 (required)")  # fmt: skip
    add("--weights", required=True, metavar="FILE",
        help="the model_final.pth of its training (required)")  # fmt: skip
    add_pairs(add)
    add = parser.add_argument_group("the attacks").add_argument
    add("--attacks", nargs="+", choices=("fgsm", "bim"), default=["fgsm", "bim"],
        help="attacks to run (default: fgsm bim)")  # fmt: skip
    add("--eps", nargs="+", type=float, default=[8.0], metavar="PIXELS",
        help="largest changes of a pixel, in values of 0-255 (default: 8)")  # fmt: skip
    add("--step", type=float, metavar="PIXELS",
        help="step of bim, in values of 0-255 (default: 2.5 * eps / iterations)")  # fmt: skip
    add("--iterations", type=int, default=10, metavar="N", help="iterations of bim")
    add("--source-weights", metavar="FILE",
        help="add black-box attacks, by the gradients of this network (default: none)")  # fmt: skip
    add("--source-config", metavar="FILE",
        help="its config (default: --config-file with the KEY VALUE pairs)")  # fmt: skip
    add = parser.add_argument_group("the images").add_argument
    add("--data-root", metavar="DIR",
        help="folder with train/<class>/ and val/<class>/ (default: DATASETS.TEST)")  # fmt: skip
    add("--num-images", type=int, default=1000, metavar="N",
        help="number of images of the validation set, chosen by --seed")  # fmt: skip
    add("--effort-images", type=int, default=100, metavar="N",
        help="number of images on which the L2 effort is measured; 0: none")  # fmt: skip
    add("--seed", type=int, default=0, help="seed of the choice of images")
    add("--output", metavar="DIR", default="output/robustness", help="folder for the files")
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """Raise what is wrong with them before anything is loaded; create the output folder."""
    from d2_isonet.config.options import check_range

    require_packages("matplotlib", needed_by="the picture")
    if args.source_config and not args.source_weights:
        raise UserError(
            f"--source-config is {args.source_config} without --source-weights",
            "give the weights whose gradients a black-box attack takes, or neither",
        )
    check_range("--effort-images", args.effort_images)
    try:
        Path(args.output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--output {args.output}: {error.strerror}", "name a folder that can be written"
        ) from error


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
    names = register_data_root(args.data_root)[1:] if args.data_root else cfg.DATASETS.TEST
    dicts, classes = robustness.choose_images(names, args.num_images, args.seed)
    model = robustness.load_classifier(cfg, args.weights, len(classes))
    source = _load_source(args, cfg, len(classes)) if args.source_weights else None
    batches = build_image_test_loader(
        dicts,
        classification_mapper(cfg, is_train=False),
        cfg.TEST.CLASSIFICATION_BATCH_SIZE,
        cfg.DATALOADER.NUM_WORKERS,
    )
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


def _load_source(
    args: argparse.Namespace, target: "CfgNode", num_classes: int
) -> "ImageClassifier":
    from d2_isonet.evaluation.robustness import load_source

    file, opts = args.config_file, args.opts
    if args.source_config:
        file, opts = config_path(args.source_config), []
    return load_source(file, opts, args.source_weights, target, num_classes)


def main(arguments: list[str] | None = None) -> int:
    args = argument_parser().parse_args(arguments)

    with readable_errors():
        check_arguments(args)
        measure(args)
    return 0
