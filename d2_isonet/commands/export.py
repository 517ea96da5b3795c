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

from d2_isonet.utils.messages import show

from .arguments import Parser


def argument_parser(program: str | None = None) -> Parser:
    usage = "--config-file FILE --weights FILE [options] [KEY VALUE ...]"
    parser = Parser("export", __doc__, program, usage=usage, check=_problem)
    add = parser.group("the network")
    add("--config-file FILE")
    add("--weights FILE", "its trained weights (default: MODEL.WEIGHTS of the config)",
        required=False)  # fmt: skip
    add("--trust-pickle")
    add("opts")
    add = parser.group("the exported file")
    add("--target {detector,backbone,classifier}",
        "the part to export (default: the whole network of the config)")  # fmt: skip
    add("--format {onnx,pt2,torchscript}", "file format", "onnx")
    add("--precision {float32,float16,bfloat16,int8}", "type of the exported numbers", "float32")
    add("--fuse {auto,on,off}", "fold the shifts of SReLU into biases; auto: if the result is "
        "exact", "auto")  # fmt: skip
    add("--class-names FILE",
        "COCO json, or text with a name per line (default: those of the weights)")  # fmt: skip
    add("--output DIR", "folder for the files", "output/export")
    add = parser.group("the comparison")
    add("--images DIR", "images to compare on, and to calibrate int8 with (default: the test set "
        "of the config)")  # fmt: skip
    add("--num-images N", "number of these images", 8, least=1)
    add("--tolerance SHARE",
        "largest relative difference (default: by precision, see docs/export.md)",
        type=float)  # fmt: skip
    add("--repetitions N", "timed runs of each network", 3, least=1)
    return parser


def _problem(args: argparse.Namespace) -> str:
    is_legal = args.tolerance is None or args.tolerance >= 0  # NaN is not
    return "" if is_legal else "--tolerance must be at least 0"


def main(arguments: list[str] | None = None) -> int:
    return argument_parser().run(export, arguments)


def export(args: argparse.Namespace) -> int:
    """Export the network and compare; the exit code is 1 if it differs too much."""
    from d2_isonet.export.session import export_and_compare

    problems = export_and_compare(args)
    for problem in problems:
        show(f"FAILED: {problem}", to_stderr=True)
    return int(bool(problems))
