"""Export a trained network to ONNX, torch.export or TorchScript, and compare the outputs.

It writes OUTPUT/TARGET.onnx (.pt2, .ts), a .json that says how to feed it, and a .comparison.json.
The exit code is 1 if the export differs from the original by more than --tolerance.

Examples:
  d2-isonet export --config-file output/risonet50_fpn/config.yaml \\
      --weights output/risonet50_fpn/model_final.pth
  the same line with, at its end:
      --format torchscript                    the detector as TorchScript
      --target backbone --format pt2          its features, by torch.export
      --precision int8 --images FOLDER        int8, calibrated on these images
"""

import argparse
import sys

from d2_isonet.utils.messages import readable_errors

from .arguments import TRUST_PICKLE, Parser, add_pairs


def argument_parser(program: str | None = None) -> Parser:
    usage = "--config-file FILE --weights FILE [options] [KEY VALUE ...]"
    parser = Parser("export", __doc__, program, usage=usage, check=_problem)
    add = parser.add_argument_group("the network").add_argument
    add("--config-file", metavar="FILE", required=True,
        help="a yaml file, or the name of a config such as risonet50_fpn (required)")  # fmt: skip
    add("--weights", metavar="FILE",
        help="its trained weights (default: MODEL.WEIGHTS of the config)")  # fmt: skip
    add("--trust-pickle", action="store_true", help=TRUST_PICKLE)
    add_pairs(add)
    add = parser.add_argument_group("the exported file").add_argument
    add("--target", choices=("detector", "backbone", "classifier"),
        help="the part to export (default: the whole network of the config)")  # fmt: skip
    add("--format", choices=("onnx", "pt2", "torchscript"), default="onnx", help="file format")
    add("--precision", choices=("float32", "float16", "bfloat16", "int8"), default="float32",
        help="type of the exported numbers")  # fmt: skip
    add("--fuse", choices=("auto", "on", "off"), default="auto",
        help="fold the shifts of SReLU into biases; auto: if the result is exact")  # fmt: skip
    add("--class-names", metavar="FILE",
        help="COCO json, or text with a name per line (default: those of the dataset)")  # fmt: skip
    add("--output", metavar="DIR", default="output/export", help="folder for the files")
    _add_comparison(parser)
    return parser


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the comparison").add_argument
    add("--images", metavar="DIR", help="images to compare on, and to calibrate int8 with "
        "(default: the test set of the config)")  # fmt: skip
    add("--num-images", type=int, default=8, metavar="N", help="number of these images")
    add("--tolerance", type=float, metavar="SHARE",
        help="largest relative difference (default: by precision, see docs/export.md)")  # fmt: skip
    add("--repetitions", type=int, default=3, metavar="N", help="timed runs of each network")


def _problem(args: argparse.Namespace) -> str:
    if args.num_images < 1 or args.repetitions < 1:
        return "--num-images and --repetitions must be at least 1"
    if args.tolerance is not None and not args.tolerance >= 0:  # also NaN
        return "--tolerance must be at least 0"
    return ""


def main(arguments: list[str] | None = None) -> int:
    args = argument_parser().parse_args(arguments)
    from d2_isonet.export.session import export_and_compare

    with readable_errors():
        problems = export_and_compare(args)
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return int(bool(problems))
