"""Train or evaluate a detectron2 LazyConfig with the orthogonal penalty and checked weights.

The config is a Python file, and loading it runs it: trust its author.

Examples:
  d2-isonet train-lazy --config-file lazy/mask_rcnn_risonet50_fpn.py --num-gpus 8
  d2-isonet train-lazy --config-file lazy/mask_rcnn_risonet50_fpn.py train.device=cpu
  d2-isonet train-lazy --config-file lazy/mask_rcnn_risonet50_fpn.py --resume
  d2-isonet train-lazy --config-file lazy/mask_rcnn_risonet50_fpn.py --eval-only \\
      train.init_checkpoint=model_final.pth
"""

import argparse

from d2_isonet.utils.messages import readable_errors

from .arguments import Parser, run_training, training_parser


def argument_parser(program: str | None = None) -> Parser:
    config = "a LazyConfig (.py), or the name of one such as lazy/mask_rcnn_risonet50_fpn.py"
    return training_parser("train-lazy", __doc__, program, config=config)


def train_lazy(args: argparse.Namespace):
    """Train or evaluate in this process, one of those that `main` starts; returns the results."""
    from d2_isonet.engine.lazy_training import evaluate, load_lazy_config, train

    with readable_errors():
        cfg = load_lazy_config(args)
    with readable_errors(of_this_process=True):
        if args.eval_only:
            return evaluate(cfg, args.trust_pickle)
        return train(cfg, args.resume, args.trust_pickle)


def main(arguments: list[str] | None = None) -> int:
    return run_training(argument_parser(), train_lazy, arguments)
