#!/usr/bin/env python
"""Pretrain a backbone on ImageNet or on any folder tree of that shape.

python tools/pretrain_imagenet.py --config-file configs/imagenet/risonet50.yaml --num-gpus 8
"""

from d2_isonet.engine.arguments import argument_parser

# The rest takes seconds to import: only when the arguments are read, so that --help does not wait.


def parse_args():
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="folder with train/<class>/ and val/<class>/, or folder or URL of their shards "
        "(tools/make_shards.py); default: $DETECTRON2_DATASETS/imagenet",
    )
    return parser.parse_args()


def main(args):
    from d2_isonet.config.loading import load_config
    from d2_isonet.engine.main import evaluate_or_train
    from d2_isonet.engine.pretraining import ClassificationTrainer, finish_pretraining_setup
    from d2_isonet.utils.messages import readable_errors

    with readable_errors():
        cfg = finish_pretraining_setup(load_config(args.config_file, args.opts), args)
    return evaluate_or_train(cfg, args, ClassificationTrainer)


if __name__ == "__main__":
    args = parse_args()
    from d2_isonet.distributed.launch import run

    run(main, args)
