#!/usr/bin/env python
"""Train or evaluate a detector: the same as `d2-isonet train`, in a file to copy and change.

Import your own modules at the top: an activation, a backbone, a dataset that they register. Every
process of a training imports this file, so that each of them knows what was registered.
"""

from d2_isonet.commands import train
from d2_isonet.utils.messages import quiet_interrupt

# import my_activation  # noqa: F401


def parse_args():
    return train.argument_parser().parse_args()


def main(args):
    """Every process runs this; `train.train(args, MyTrainer)` trains with your own trainer."""
    return train.train(args)


if __name__ == "__main__":
    with quiet_interrupt():
        args = parse_args()
        from d2_isonet.distributed.launch import run  # imports torch, which --help does not need

        run(main, args)
