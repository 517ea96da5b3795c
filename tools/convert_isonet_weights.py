#!/usr/bin/env python
"""Convert the ISONet authors' weights, or torchvision's or timm's ResNets, for this project.

python tools/convert_isonet_weights.py IN.pt OUT.pth
"""

import argparse

# The rest takes seconds to import: only when the arguments are read, so that --help does not wait.


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="IN.pt", help="only tensors are read, no code is run")
    parser.add_argument("target", metavar="OUT.pth")
    parser.add_argument("--depth", type=int, help="stop unless IN.pt has this depth")
    parser.add_argument(
        "--kind", choices=("risonet", "isonet", "resnet"), help="stop unless IN.pt is one"
    )
    return parser.parse_args()


def main(args):
    from tabulate import tabulate

    from d2_isonet.checkpoint.conversion import config_options, convert, kind_of
    from d2_isonet.utils.messages import readable_errors

    with readable_errors():
        meta, rows = convert(args.source, args.target, args.depth, args.kind)
    depth, kind = meta["architecture"]["depth"], kind_of(meta["architecture"])
    total = sum(number for _, number in rows)
    print(f"{kind} of depth {depth}, {meta['num_classes']} classes, from {meta['source']}")
    print(tabulate([*rows, ("all", total)], headers=["stage", "tensors converted"]))
    config = f"risonet{min(depth, 101)}"  # the yaml at hand; the pairs say what differs from it
    print(f"\nWritten to {args.target}. Accuracy on ImageNet, then a detector that starts from it:")
    print(
        f"  python tools/pretrain_imagenet.py --config-file configs/imagenet/{config}.yaml "
        f"--eval-only MODEL.WEIGHTS {args.target} {' '.join(config_options(meta))}\n"
        f"  python train_net.py --config-file configs/{config}_fpn.yaml "
        f"MODEL.WEIGHTS {args.target} {' '.join(config_options(meta, detector=True))}"
    )


if __name__ == "__main__":
    main(parse_args())
