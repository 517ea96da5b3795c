#!/usr/bin/env python
"""Train or evaluate what a LazyConfig describes, with the orthogonal penalty and checked weights.

python tools/train_lazy.py --config-file configs/lazy/mask_rcnn_risonet50_fpn.py --num-gpus 8
python tools/train_lazy.py --config-file configs/lazy/mask_rcnn_risonet50_fpn.py train.device=cpu
"""

from d2_isonet.engine.arguments import argument_parser

# The rest takes seconds to import: only when the arguments are read, so that --help does not wait.


def parse_args():
    return argument_parser(__doc__).parse_args()


def main(args):
    from d2_isonet.engine.lazy_training import evaluate, load_lazy_config, train
    from d2_isonet.utils.messages import readable_errors

    with readable_errors():
        cfg = load_lazy_config(args)
    with readable_errors(of_this_process=True):
        if args.eval_only:
            return evaluate(cfg, args.trust_pickle)
        return train(cfg, args.resume, args.trust_pickle)


if __name__ == "__main__":
    args = parse_args()
    from d2_isonet.distributed.launch import run

    run(main, args)
