"""Make one HTML page about training runs: curves, results, errors, images, configs.

The page is one file that needs no network. The runs may be finished or still in progress; the page
says what a run lacks.

Examples:
  d2-isonet report output/risonet50_c4
  d2-isonet report output/risonet50_c4 output/resnet50_c4 --names R-ISONet ResNet
  d2-isonet report output/risonet50_c4 --annotations val.json --images images/
"""

import argparse
from pathlib import Path

from d2_isonet.utils.command_line import require_packages
from d2_isonet.utils.messages import show

from .arguments import Parser


def argument_parser(program: str | None = None) -> Parser:
    parser = Parser("report", __doc__, program, usage="OUTPUT_DIR ... [options]", check=_problem)
    parser.add_argument("output_dirs", nargs="+", type=Path, metavar="OUTPUT_DIR",
                        help="the folder of a run; several are compared")  # fmt: skip
    add = parser.group("the page")
    add("--output FILE", "the page", Path("report.html"))
    add("--names NAME ...", "names of the runs, in order (default: those of their folders)")
    add("--num-images N", "number of best images, and of worst images, that are drawn", 6,
        least=0, old=())  # fmt: skip
    add("--score-threshold SCORE", "least score of the detections in the confusion matrix and the "
        "pictures, 0 to 1 (default: the one with the best F1)", type=float)  # fmt: skip
    add = parser.group("the dataset of the evaluation, if it has moved")
    add("--annotations FILE", "its COCO json (default: where the evaluation found it)", type=Path,
        old=("--truth",))  # fmt: skip
    add("--images DIR", "folder of its images (default: where it found them)", action=_Images,
        old=("--image-root",))  # fmt: skip
    return parser


class _Images(argparse.Action):
    """A folder. A number is an earlier spelling of --num-images."""

    def __call__(self, parser, namespace, values, option_string=None):
        is_number = option_string != "--image-root" and values.lstrip("-").isdigit()
        name, value = ("num_images", int(values)) if is_number else ("images", Path(values))
        setattr(namespace, name, value)


def _problem(args: argparse.Namespace) -> str:
    if args.names and len(set(args.names)) != len(args.output_dirs):
        return "--names needs one name for each OUTPUT_DIR, each different"
    if args.output.is_dir():
        return f"--output {args.output} is a folder: give a file, {args.output}/report.html"
    return ""


def main(arguments: list[str] | None = None) -> int:
    return argument_parser().run(report, arguments)


def report(args: argparse.Namespace) -> None:
    """Write the page about the runs, and print what they lack."""
    require_packages("jinja2", "matplotlib", "cv2", needed_by="the report")
    from d2_isonet.reporting.runs.compose import compose
    from d2_isonet.reporting.runs.run import names_of, read_run

    names = args.names or names_of(args.output_dirs)
    runs = [read_run(*pair) for pair in zip(args.output_dirs, names, strict=True)]
    page = compose(runs, args.num_images, args.score_threshold, args.annotations, args.images)
    file = page.write(args.output)
    for run in runs:
        for note in run.notes:
            show(f"{run.name}: {note}")
    print(f"Written: {file} ({file.stat().st_size / 1e6:.1f} MB)")
