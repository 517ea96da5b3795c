#!/usr/bin/env python
"""Export a trained network to ONNX, torch.export or TorchScript, and compare it with the original.

python tools/export_model.py --config-file output/risonet50_fpn/config.yaml \\
    --weights output/risonet50_fpn/model_final.pth            the whole detector to ONNX
... --format torchscript                                      to TorchScript
... --target backbone --format pt2                            its features, by torch.export
... --precision int8 --images FOLDER                          calibrated on these images

Writes OUTPUT/TARGET.onnx (.pt2, .ts) and beside it a .json that says how to feed it and a
.comparison.json; ends with 1 where it differs from the original by more than --tolerance.
"""

import argparse
import sys


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", metavar="FILE", required=True, help="yaml of the network")
    add("--weights", metavar="FILE", help="what is exported (MODEL.WEIGHTS)")
    add("--target", choices=("detector", "backbone", "classifier"),
        help="(what the config describes)")  # fmt: skip
    add("--format", choices=("onnx", "pt2", "torchscript"), default="onnx")
    add("--precision", choices=("float32", "float16", "bfloat16", "int8"), default="float32")
    add("--fuse", choices=("auto", "on", "off"), default="auto",
        help="SReLU's shifts into biases: where that is exact (auto)")  # fmt: skip
    add("--images", metavar="DIR", help="to compare on, and to calibrate int8 by (the test set)")
    add("--num-images", type=int, default=8, metavar="N", help="of them (8)")
    add("--tolerance", type=float, metavar="SHARE",
        help="largest difference as a share (by precision, see docs/export.md)")  # fmt: skip
    add("--class-names", metavar="FILE", help="COCO json, or a text file with a name a line")
    add("--repetitions", type=int, default=3, metavar="N", help="timed runs of each side (3)")
    add("--output", metavar="DIR", default="output/export")
    add("--trust-pickle", action="store_true",
        help="read .pkl weights, which can run any code their author put in")  # fmt: skip
    add("opts", nargs=argparse.REMAINDER, help="at the end: KEY VALUE pairs that change the config")
    args = parser.parse_args(arguments)
    if args.num_images < 1 or args.repetitions < 1:
        parser.error("--num-images and --repetitions must be at least 1")
    if args.tolerance is not None and not args.tolerance >= 0:  # also NaN
        parser.error("--tolerance must be at least 0")
    return args


def main(args: argparse.Namespace) -> int:
    from d2_isonet.export.session import export_and_compare
    from d2_isonet.utils.messages import readable_errors

    with readable_errors():
        problems = export_and_compare(args)
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(parse_args()))
