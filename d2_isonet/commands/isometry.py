"""Measure how isometric a network is: singular values, penalty, shifts, scales, signal norms.

It prints tables and writes isometry.html (one self-contained page), isometry.json and pictures.

Examples:
  d2-isonet isometry --config-file imagenet/risonet50
  d2-isonet isometry --weights output/risonet50_fpn/model_final.pth --images FOLDER
  d2-isonet isometry --config-file COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml
  d2-isonet isometry --timm resnet18 --weights FILE
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from d2_isonet.utils.command_line import require_packages
from d2_isonet.utils.messages import readable_errors

from .arguments import TRUST_PICKLE, Parser, add_pairs

if TYPE_CHECKING:
    from d2_isonet.reporting.isometry.analysis import Analysis


def argument_parser(program: str | None = None) -> Parser:
    usage = "--config-file FILE|--weights FILE|--timm NAME [options] [KEY VALUE ...]"
    parser = Parser("isometry", __doc__, program, usage=usage, check=_problem)
    add = parser.add_argument_group("the network").add_argument
    add("--config-file", metavar="FILE",
        help="a yaml file, or the name of a config of d2_isonet or of detectron2's model zoo "
        "(default: the config.yaml beside --weights)")  # fmt: skip
    add("--weights", metavar="FILE", help="its weights (default: as initialized)")
    add("--timm", metavar="NAME", help="a network of timm instead (default: none)")
    add("--trust-pickle", action="store_true", help=TRUST_PICKLE)
    add_pairs(add)
    _add_images(parser)
    add = parser.add_argument_group("what is measured").add_argument
    add("--frequencies", type=int, default=8, metavar="N",
        help="side of the grid of output pixels of a convolution's operator")  # fmt: skip
    add("--limit", type=float, default=10.0, metavar="FACTOR",
        help="report a signal that grows by more than this factor, or shrinks by more")  # fmt: skip
    add("--all", action="store_true", help="measure the convolutions of a detector's heads too")
    add("--seed", type=int, default=0, help="seed of the initialization and the cotangent")
    add("--output", type=Path, default=Path("output/isometry"), metavar="DIR",
        help="folder for the page, the json and the pictures")  # fmt: skip
    return parser


def _add_images(parser: Parser) -> None:
    add = parser.add_argument_group("the images that go through the network").add_argument
    add("--images", metavar="DIR",
        help="folder of images (default: the test set of the config)")  # fmt: skip
    annotations = add("--annotations", metavar="FILE",
        help="COCO json of the images (default: all images in --images); its images lie in "
        "--images, or beside it")  # fmt: skip
    parser.accept_old(annotations)
    add("--image-root", metavar="DIR", help=argparse.SUPPRESS)  # an old spelling, see _problem
    add("--num-images", type=int, default=2, metavar="N",
        help="number of images, spread over the folder")  # fmt: skip


def _problem(args: argparse.Namespace) -> str:
    if args.timm and (args.config_file or args.opts):
        return "--timm goes without --config-file and KEY VALUE pairs"
    if args.num_images < 1 or args.frequencies < 1 or args.limit <= 1:
        return "--num-images and --frequencies must be at least 1, --limit above 1"
    if args.annotations:  # the old spelling was --images FILE --image-root DIR
        args.images, args.image_root = args.annotations, args.images
    return ""


def analysis_of(args: argparse.Namespace) -> "Analysis":
    """All measurements of the network that `args` name."""
    from d2_isonet.reporting.isometry.analysis import analyze
    from d2_isonet.reporting.isometry.networks import network_of

    return analyze(network_of(args), args.frequencies, args.limit, args.seed)


def main(arguments: list[str] | None = None) -> int:
    args = argument_parser().parse_args(arguments)
    from detectron2.utils.logger import setup_logger

    setup_logger(name="d2_isonet")
    with readable_errors():
        require_packages("jinja2", "matplotlib", needed_by="the page")
        from d2_isonet.reporting.isometry.report import print_analysis, write_analysis

        analysis = analysis_of(args)
    print_analysis(analysis)
    print(f"\nPage: {write_analysis(analysis, args.output)}")
    return 0
