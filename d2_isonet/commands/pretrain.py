"""Pretrain a backbone on ImageNet, or on any folder with an image folder per class.

Examples:
  d2-isonet pretrain --config-file imagenet/risonet50 --num-gpus 8
  d2-isonet pretrain --config-file imagenet/risonet50 --data-root FOLDER SOLVER.BASE_LR 0.05
  d2-isonet pretrain --config-file imagenet/risonet50 --resume
  d2-isonet pretrain --config-file imagenet/risonet50 --eval-only \\
      MODEL.WEIGHTS output/imagenet/risonet50/model_final.pth
"""

import argparse

from d2_isonet.utils.messages import readable_errors

from .arguments import Parser, run_training, training_parser


def argument_parser(program: str | None = None) -> Parser:
    config = "a yaml file, or the name of a config such as imagenet/risonet50"
    parser = training_parser("pretrain", __doc__, program, config=config)
    add = parser.group("your own images")
    add("--data-root DIR", "folder with train/<class>/ and val/<class>/, or the folder or URL of "
        "shards made by `d2-isonet make-shards` (default: $DETECTRON2_DATASETS/imagenet)"
        )  # fmt: skip
    return parser


def pretrain(args: argparse.Namespace):
    """Train or evaluate in this process, one of those that `main` starts; returns the results."""
    from d2_isonet.config.loading import load_config
    from d2_isonet.engine.main import evaluate_or_train
    from d2_isonet.engine.pretraining import ClassificationTrainer, finish_pretraining_setup
    from d2_isonet.preflight.network import check_task

    with readable_errors():
        cfg = load_config(args.config_file, args.opts)
        check_task(cfg, args.config_file, classifies=True)
        cfg = finish_pretraining_setup(cfg, args)
    return evaluate_or_train(cfg, args, ClassificationTrainer)


def main(arguments: list[str] | None = None) -> int:
    return run_training(argument_parser(), pretrain, arguments)
