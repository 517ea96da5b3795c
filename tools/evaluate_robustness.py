#!/usr/bin/env python
"""Accuracy of a classifier under FGSM and BIM, and the L2 effort needed to fool it.

python tools/evaluate_robustness.py --config-file configs/imagenet/risonet18.yaml \\
    --weights output/imagenet/risonet18/model_final.pth --eps 2 4 8
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from d2_isonet.config.loading import load_config
from d2_isonet.config.options import check_range
from d2_isonet.data.datasets import register_data_root
from d2_isonet.engine.pretraining import ClassificationTrainer
from d2_isonet.evaluation.gradient_masking import masking_signs
from d2_isonet.evaluation.robustness import (
    attack_settings,
    choose_images,
    evaluate_robustness,
    load_classifier,
    load_source,
)
from d2_isonet.reporting.robustness import format_results, write_report
from d2_isonet.utils.messages import UserError, readable_errors


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, help="yaml of the network (its OUTPUT_DIR/config.yaml)")
    add("--weights", required=True, help="model_final.pth of its training")
    add("--data-root", metavar="DIR", help="folder with train/<class>/ and val/<class>/")
    add("--source-weights", help="black-box attacks too, by the gradients of this network")
    add("--source-config", help="its yaml (default: --config-file with the KEY VALUE pairs)")
    add("--attacks", nargs="+", choices=("fgsm", "bim"), default=["fgsm", "bim"])
    add("--eps", nargs="+", type=float, default=[8.0], help="in pixel values of 0-255 (8)")
    add("--step", type=float, help="of bim, in pixel values (2.5 * eps / iterations)")
    add("--iterations", type=int, default=10, help="of bim (10)")
    add("--num-images", type=int, default=1000, help="of the validation set, by --seed (1000)")
    add("--effort-images", type=int, default=100, help="for the L2 effort; 0 for none (100)")
    add("--seed", type=int, default=0)
    add("--output", metavar="DIR", default="output/robustness", help="for json and picture")
    add(
        "opts",
        nargs="*",
        metavar="KEY=VALUE",
        help="at the end, after an option that takes one value",
    )
    return parser.parse_args(arguments)


def check_arguments(args):
    """Raise what is wrong with them before anything is loaded; the output folder is there then."""
    if args.source_config and not args.source_weights:
        raise UserError(
            f"--source-config is {args.source_config} without --source-weights; give the weights "
            "whose gradients a black-box attack takes, or neither"
        )
    check_range("--effort-images", args.effort_images)
    try:
        Path(args.output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--output {args.output}: {error.strerror}; name a folder that can be written"
        ) from error


def main(args):
    """Evaluate, print the table, write robustness.json and .png; returns what the json holds."""
    with readable_errors():
        check_arguments(args)
        settings = attack_settings(args.attacks, args.eps, args.step, args.iterations)
        cfg = load_config(args.config_file, args.opts)
        names = register_data_root(args.data_root)[1:] if args.data_root else cfg.DATASETS.TEST
        dicts, classes = choose_images(names, args.num_images, args.seed)
        model, source = load_classifier(cfg, args.weights, len(classes)), None
        if args.source_weights:
            yaml = (args.source_config, []) if args.source_config else (args.config_file, args.opts)
            source = load_source(*yaml, args.source_weights, cfg, len(classes))
        batches = ClassificationTrainer.build_test_loader(cfg, dicts)
        progress = tqdm(batches, "attacking", unit="batch")
        try:
            results = evaluate_robustness(model, progress, settings, source, args.effort_images)
        except FloatingPointError as error:
            files = " or ".join(filter(None, (args.weights, args.source_weights)))
            raise UserError(f"{files}: {error}") from error
    results = {**vars(args), **results, "gradient_masking": masking_signs(results)}
    print(format_results(results))
    write_report(results, model, next(iter(batches)), classes, cfg.INPUT.FORMAT)
    return results


if __name__ == "__main__":
    main(parse_args())
