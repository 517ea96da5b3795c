"""Train or evaluate a detector, such as Faster or Mask R-CNN, on COCO-format data.

Examples:
  d2-isonet train --config-file risonet50_c4 --num-gpus 8
  d2-isonet train --config-file risonet50_c4 SOLVER.BASE_LR 0.005 MODEL.WEIGHTS backbone.pth
  d2-isonet train --config-file risonet50_c4 --resume
  d2-isonet train --config-file output/risonet50_c4/config.yaml --eval-only \\
      MODEL.WEIGHTS output/risonet50_c4/model_final.pth
  on two machines, the first of which is called HOST, in a shell of each:
  d2-isonet train --config-file risonet50_c4 --num-gpus 8 --num-machines 2 \\
      --dist-url tcp://HOST:PORT --machine-rank 0
  d2-isonet train --config-file risonet50_c4 --num-gpus 8 --num-machines 2 \\
      --dist-url tcp://HOST:PORT --machine-rank 1
"""

import argparse
from typing import TYPE_CHECKING

from d2_isonet.utils.messages import readable_errors

from .arguments import OWN_DATA, Parser, run_training, training_parser

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from d2_isonet.engine.trainer import Trainer


def argument_parser(program: str | None = None) -> Parser:
    parser = training_parser("train", __doc__, program)
    add = parser.group(OWN_DATA)
    add("--train-annotations FILE")
    add("--train-images DIR")
    add("--val-annotations FILE", "COCO json to evaluate on (default: DATASETS.TEST, or no "
        "evaluation if --train-annotations is given)", dest="val_json", old=("--val-json",)
        )  # fmt: skip
    add("--val-images DIR", "folder of its images (default: none)")
    return parser


def setup(args: argparse.Namespace) -> "CfgNode":
    """The config of the run: checked, scaled to the processes and frozen; the logs are open."""
    from d2_isonet.config.loading import load_config
    from d2_isonet.data.datasets import use_own_data
    from d2_isonet.engine.main import finish_setup
    from d2_isonet.preflight.data.sets import check_datasets
    from d2_isonet.preflight.network import check_task

    cfg = load_config(args.config_file, args.opts)
    check_task(cfg, args.config_file, classifies=False)
    use_own_data(cfg, args)
    check_datasets(cfg, args.eval_only)
    return finish_setup(cfg, args)


def train(args: argparse.Namespace, trainer_class: "type[Trainer] | None" = None):
    """Train or evaluate in this process, one of those that `main` starts; returns the results."""
    from d2_isonet.engine.main import evaluate_or_train
    from d2_isonet.engine.trainer import Trainer

    with readable_errors():
        cfg = setup(args)
    return evaluate_or_train(cfg, args, trainer_class or Trainer)


def main(arguments: list[str] | None = None) -> int:
    return run_training(argument_parser(), train, arguments)
