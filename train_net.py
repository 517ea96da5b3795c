#!/usr/bin/env python
"""Train or evaluate a detector: Faster or Mask R-CNN on COCO-format data.

python train_net.py --config-file configs/risonet50_c4.yaml --num-gpus 8
"""

from d2_isonet.engine.arguments import argument_parser

# The rest takes seconds to import: only when the arguments are read, so that --help does not wait.


def parse_args():
    parser = argument_parser(__doc__)
    own = parser.add_argument_group("a COCO-format data set of your own (classes from the file)")
    own.add_argument("--train-json", metavar="FILE", help="annotations to train on")
    own.add_argument("--train-images", metavar="DIR", help="the folder of their images")
    own.add_argument("--val-json", metavar="FILE", help="annotations to evaluate on")
    own.add_argument("--val-images", metavar="DIR", help="the folder of their images")
    return parser.parse_args()


def setup(args):
    from d2_isonet.config.loading import load_config
    from d2_isonet.data.datasets import use_own_data
    from d2_isonet.engine.main import finish_setup
    from d2_isonet.preflight.data.sets import check_datasets

    cfg = load_config(args.config_file, args.opts)
    use_own_data(cfg, args)
    check_datasets(cfg, args.eval_only)
    return finish_setup(cfg, args)


def main(args):
    from d2_isonet.engine.main import evaluate_or_train
    from d2_isonet.engine.trainer import Trainer
    from d2_isonet.utils.messages import readable_errors

    with readable_errors():
        cfg = setup(args)
    return evaluate_or_train(cfg, args, Trainer)


if __name__ == "__main__":
    args = parse_args()
    from d2_isonet.distributed.launch import run

    run(main, args)
