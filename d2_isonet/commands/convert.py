"""Convert weights: of the ISONet authors, torchvision or timm, or between .pth and .safetensors.

Weights of others get the names of this project. Of weights that have them, only the format
changes. Files are read as tensors alone, no code in them is run.

Examples:
  d2-isonet convert RISO50.pt risonet50.pth
  d2-isonet convert backbone.pth backbone.safetensors
  d2-isonet convert backbone.safetensors backbone.pth
"""

import argparse

from d2_isonet.utils.messages import show

from .arguments import Parser


def argument_parser(program: str | None = None) -> Parser:
    parser = Parser("convert", __doc__, program, usage="IN OUT [options]")
    parser.add_argument("source", metavar="IN", help="the weights, .pt, .pth or .safetensors")
    parser.add_argument("target", metavar="OUT", help="the new file, .pth or .safetensors")
    add = parser.group("weights of others")
    add("--depth N", "stop unless IN has this depth (default: any)", type=int)
    add("--kind {risonet,isonet,resnet}", "stop unless IN is such a network (default: any)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    return argument_parser().run(convert, arguments)


def convert(args: argparse.Namespace) -> None:
    """Write the weights in the other format, or those of others with the names of this project."""
    from d2_isonet.checkpoint.conversion import change_format, has_names_of_others
    from d2_isonet.checkpoint.safetensors_file import SUFFIX

    source, target = args.source, args.target
    same_format = source.endswith(SUFFIX) == target.endswith(SUFFIX)
    if same_format or args.depth or args.kind or has_names_of_others(source):
        return rename(args)
    number, left_out = change_format(source, target)
    print(f"{number} tensors written to {target}; MODEL.WEIGHTS can name it like {source}")
    if left_out:
        show(f"left out: {', '.join(left_out)} (no training can resume from {target})")


def rename(args: argparse.Namespace) -> None:
    """Write the weights of others with the names of this project; print how to use them."""
    from tabulate import tabulate

    from d2_isonet.checkpoint.conversion import config_options, convert, kind_of

    meta, rows = convert(args.source, args.target, args.depth, args.kind)
    depth, kind = meta["architecture"]["depth"], kind_of(meta["architecture"])
    total = sum(number for _, number in rows)
    print(f"{kind} of depth {depth}, {meta['num_classes']} classes, from {meta['source']}")
    print(tabulate([*rows, ("all", total)], headers=["stage", "tensors converted"]))
    config = f"risonet{min(depth, 101)}"  # the pairs say what differs from it
    print(
        f"\nWritten to {args.target}. Accuracy on ImageNet, then a detector that starts from it:\n"
        f"  d2-isonet pretrain --config-file imagenet/{config} --eval-only "
        f"MODEL.WEIGHTS {args.target} {' '.join(config_options(meta))}\n"
        f"  d2-isonet train --config-file {config}_fpn "
        f"MODEL.WEIGHTS {args.target} {' '.join(config_options(meta, detector=True))}"
    )
