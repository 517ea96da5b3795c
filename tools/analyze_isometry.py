#!/usr/bin/env python
"""How isometric a network is: singular values, penalty, shifts, scales, norms through depth.

python tools/analyze_isometry.py --config-file configs/imagenet/risonet50.yaml    as initialized
python tools/analyze_isometry.py --weights output/risonet50_fpn/model_final.pth --images FOLDER
python tools/analyze_isometry.py --config-file COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml
python tools/analyze_isometry.py --timm resnet18 --weights FILE

Prints tables; writes isometry.html (one self-contained page), isometry.json and pictures.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from d2_isonet.reporting.isometry.analysis import Analysis


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", metavar="FILE",
        help="yaml of the network, or its name in detectron2's model zoo (the config.yaml beside "
        "--weights)")  # fmt: skip
    add("--timm", metavar="NAME", help="a network of timm instead")
    add("--weights", metavar="FILE", help="without them the network is as initialized")
    add("--images", metavar="PATH", help="folder or COCO json (the test set of the config)")
    add("--image-root", metavar="DIR", help="of the images of a json (its folder)")
    add("--num-images", type=int, default=2, metavar="N", help="spread over them (2)")
    add("--frequencies", type=int, default=8, metavar="N",
        help="side of the grid of output pixels of a convolution's operator (8)")  # fmt: skip
    add("--limit", type=float, default=10.0, metavar="FACTOR",
        help="a signal multiplied by more, or by less than 1/FACTOR, is told (10)")  # fmt: skip
    add("--all", action="store_true", help="the convolutions of a detector's heads, too")
    add("--seed", type=int, default=0, help="of the initialization and the cotangent (0)")
    add("--output", type=Path, default=Path("output/isometry"), metavar="DIR")
    add("--trust-pickle", action="store_true",
        help="read .pkl weights, which can run any code their author put in")  # fmt: skip
    add("opts", nargs=argparse.REMAINDER, help="at the end: KEY VALUE pairs that change the config")
    args = parser.parse_args(arguments)
    if args.timm and (args.config_file or args.opts):
        parser.error("--timm goes without --config-file and KEY VALUE pairs")
    if args.num_images < 1 or args.frequencies < 1 or args.limit <= 1:
        parser.error("--num-images and --frequencies must be at least 1, --limit above 1")
    return args


def analysis_of(args: argparse.Namespace) -> "Analysis":
    """All measurements of the network that `args` name."""
    from d2_isonet.reporting.isometry.analysis import analyze

    if args.timm:
        from d2_isonet.reporting.isometry.networks import timm_network as network_of
    else:
        from d2_isonet.reporting.isometry.networks import detectron2_network as network_of
    return analyze(network_of(args), args.frequencies, args.limit, args.seed)


def main(args: argparse.Namespace) -> None:
    from detectron2.utils.logger import setup_logger

    from d2_isonet.reporting.isometry.report import print_analysis, write_analysis
    from d2_isonet.utils.messages import readable_errors

    setup_logger(name="d2_isonet")
    with readable_errors():
        analysis = analysis_of(args)
    print_analysis(analysis)
    print(f"\nPage: {write_analysis(analysis, args.output)}")


if __name__ == "__main__":
    main(parse_args())
