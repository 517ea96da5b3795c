"""Show what a detector finds in images, videos, a webcam, or on a page in the browser.

It writes annotated copies, and the detections as COCO json. The exit code is 1 if nothing could be
read.

Examples:
  d2-isonet demo --config-file output/risonet50_fpn/config.yaml \\
      --weights output/risonet50_fpn/model_final.pth --input photos/ --output output/demo
  the same line with, in place of --input and --output:
      --input clip.mp4 --output output/demo   a video
      --input webcam --output output/demo     a camera
      --serve                                 a page on which images can be dropped
"""

import argparse
import sys
from pathlib import Path

from d2_isonet.utils.command_line import require_packages
from d2_isonet.utils.messages import INTERRUPTED, readable_errors

from .arguments import TRUST_PICKLE, Parser, add_pairs

MOST_THREADS = 1024


def argument_parser(program: str | None = None) -> Parser:
    usage = (
        "--config-file FILE --weights FILE --input PATH ... --output DIR [options] [KEY VALUE ...]"
    )
    parser = Parser("demo", __doc__, program, usage=usage, check=_problem)
    add = parser.add_argument_group("the detector").add_argument
    add("--config-file", required=True, metavar="FILE",
        help="a yaml file, or the name of a config such as risonet50_fpn (required)")  # fmt: skip
    add("--weights", required=True, metavar="FILE",
        help="the model_final.pth of its training (required)")  # fmt: skip
    score = add("--score-threshold", type=float, default=0.5, metavar="SCORE", dest="threshold",
                help="least score of what is shown, 0 to 1")  # fmt: skip
    parser.accept_old(score, "--threshold")
    add("--annotations", metavar="FILE",
        help="COCO json with class names, and image ids by file name (default: names of the "
        "weights or the config)")  # fmt: skip
    add("--fuse", action="store_true", help="join convolutions and activations: faster on a CPU")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads; 0: torch's number")
    add("--trust-pickle", action="store_true", help=TRUST_PICKLE)
    add_pairs(add)
    _add_files(parser)
    _add_server(parser)
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("files").add_argument
    add("--input", nargs="+", metavar="PATH", help="images, videos, folders or 'patterns/*.jpg'; "
        "or webcam, webcam1, ... (default: none, see --serve)")  # fmt: skip
    add("--output", type=Path, metavar="DIR",
        help="folder for annotated copies and COCO json (default: none)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace the files of an earlier demo in --output")
    add("--batch-size", type=int, default=1, metavar="N", help="images that are read at once")
    add("--max-frames", type=int, metavar="N",
        help="stop after this many frames of a video or a webcam (default: no limit)")  # fmt: skip


def _add_server(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("a page in the browser").add_argument
    add("--serve", action="store_true", help="serve a page on which images can be dropped")
    add("--host", default="127.0.0.1",
        help="address to listen at; 127.0.0.1 is reached from this machine alone")  # fmt: skip
    add("--port", type=int, default=8000, metavar="N", help="port to listen at; 0: any free one")
    add(
        "--max-upload",
        type=float,
        default=20.0,
        metavar="MB",
        help="largest image file, in 10^6 bytes",
    )


def _problem(args: argparse.Namespace) -> str:
    if not args.weights:
        return "--weights is empty; name the detector's model_final.pth"
    if not 0 <= args.threshold <= 1:
        return f"--score-threshold is {args.threshold:g}; it must be from 0 to 1"
    if args.batch_size < 1:
        return f"--batch-size is {args.batch_size}; it must be at least 1"
    if args.max_frames is not None and args.max_frames < 1:
        return f"--max-frames is {args.max_frames}; it must be at least 1"
    if not 0 <= args.threads <= MOST_THREADS:
        return f"--threads is {args.threads}; it must be from 0 to {MOST_THREADS}"
    if args.serve:
        return _server_problem(args)
    if not args.input:
        return "there is nothing to look at: give --input PATH ..., or --serve"
    if args.output is None:
        return "--output DIR is missing: where annotated copies are written"
    return ""


def _server_problem(args: argparse.Namespace) -> str:
    if args.input or args.output:
        return "--serve takes its images from the page: leave out --input and --output"
    if not 0 <= args.port <= 65535:
        return f"--port is {args.port}; it must be from 0 to 65535"
    if not 0 < args.max_upload <= 1000:
        return f"--max-upload is {args.max_upload:g}; it must be above 0 and at most 1000 (MB)"
    return ""


def main(arguments: list[str] | None = None) -> int:
    args = argument_parser().parse_args(arguments)

    with readable_errors():
        require_packages("cv2", needed_by="the demo")
        try:
            return _serve(args) if args.serve else _show_files(args)
        except KeyboardInterrupt:  # before there was anything to keep
            print("interrupted", file=sys.stderr)
            return INTERRUPTED


def _show_files(args: argparse.Namespace) -> int:
    from d2_isonet.demo.detector import load_detector, read_config
    from d2_isonet.demo.outputs import check_targets
    from d2_isonet.demo.runner import run
    from d2_isonet.demo.sources import find_sources
    from d2_isonet.demo.streams import require_camera

    found = find_sources(args.input)
    check_targets(found, args.output, args.overwrite)
    cfg = read_config(args, args.threshold)
    if found.sources[0].kind == "webcam":
        require_camera(int(found.sources[0].path))
    return run(args, load_detector(cfg, args), found)


def _serve(args: argparse.Namespace) -> int:

    require_packages("flask", "waitress", needed_by="--serve")
    from d2_isonet.demo import server
    from d2_isonet.demo.detector import load_detector, read_config

    cfg = read_config(args, min(args.threshold, server.LEAST_SCORE))
    with server.open_socket(args.host, args.port) as listening:  # before the weights are read
        return server.serve(load_detector(cfg, args), listening, args)
