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

from .arguments import Parser

if TYPE_CHECKING:
    from d2_isonet.reporting.isometry.analysis import Analysis


def argument_parser(program: str | None = None) -> Parser:
    usage = "--config-file FILE|--weights FILE|--timm NAME [options] [KEY VALUE ...]"
    parser = Parser("isometry", __doc__, program, usage=usage, check=_problem)
    add = parser.group("the network")
    add("--config-file FILE", "a yaml file, or the name of a config of d2_isonet or of "
        "detectron2's model zoo (default: the config.yaml beside --weights)",
        required=False)  # fmt: skip
    add("--weights FILE", "its weights (default: as initialized)", required=False)
    add("--timm NAME", "a network of timm instead (default: none)")
    add("--trust-pickle")
    add("opts")
    add = parser.group("the images that go through the network")
    add("--images DIR", "folder of images (default: the test set of the config)")
    add("--annotations FILE", "COCO json of the images (default: all images in --images); its "
        "images lie in --images, or beside it", old=())  # fmt: skip
    add("--image-root DIR", argparse.SUPPRESS)  # an old spelling, see _problem
    add("--num-images N", "number of images, spread over the folder", 2, least=1)
    add = parser.group("what is measured")
    add("--frequencies N", "side of the grid of output pixels of a convolution's operator", 8,
        least=1)  # fmt: skip
    add("--limit FACTOR", "report a signal that grows by more than this factor, or shrinks by more",
        10.0)  # fmt: skip
    add("--all", "measure the convolutions of a detector's heads too")
    add("--seed SEED", "seed of the initialization and the cotangent", 0)
    add("--output DIR", "folder for the page, the json and the pictures", Path("output/isometry"))
    return parser


def _problem(args: argparse.Namespace) -> str:
    if args.timm and (args.config_file or args.opts):
        return "--timm goes without --config-file and KEY VALUE pairs"
    if args.annotations:  # the old spelling was --images FILE --image-root DIR
        args.images, args.image_root = args.annotations, args.images
    return "" if args.limit > 1 else f"--limit is {args.limit:g}; it must be above 1"


def analysis_of(args: argparse.Namespace) -> "Analysis":
    """All measurements of the network that `args` name."""
    from d2_isonet.reporting.isometry.analysis import analyze
    from d2_isonet.reporting.isometry.networks import network_of

    return analyze(network_of(args), args.frequencies, args.limit, args.seed)


def main(arguments: list[str] | None = None) -> int:
    return argument_parser().run(measure, arguments)


def measure(args: argparse.Namespace) -> None:
    """Measure the network, print the tables and write the page."""
    from detectron2.utils.logger import setup_logger

    setup_logger(name="d2_isonet")
    require_packages("jinja2", "matplotlib", needed_by="the page")
    from d2_isonet.reporting.isometry.report import print_analysis, write_analysis

    analysis = analysis_of(args)
    print_analysis(analysis)
    print(f"\nPage: {write_analysis(analysis, args.output)}")
