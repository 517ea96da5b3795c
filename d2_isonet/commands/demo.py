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
from pathlib import Path

from d2_isonet.utils.command_line import require_packages

from .arguments import Parser

MOST_THREADS = 1024


def argument_parser(program: str | None = None) -> Parser:
    usage = (
        "--config-file FILE --weights FILE --input PATH ... --output DIR [options] [KEY VALUE ...]"
    )
    parser = Parser("demo", __doc__, program, usage=usage, check=_problem)
    add = parser.group("the detector")
    add("--config-file FILE")
    add("--weights FILE")
    add("--score-threshold SCORE", "least score of what is shown, 0 to 1", 0.5, dest="threshold",
        least=0, most=1, old=("--threshold",))  # fmt: skip
    add("--annotations FILE", "COCO json with class names, and image ids by file name (default: "
        "names of the weights or the config)")  # fmt: skip
    add("--fuse", "join convolutions and activations: faster on a CPU")
    add("--threads N", "CPU threads; 0: torch's number", 0, least=0, most=MOST_THREADS)
    add("--trust-pickle")
    add("opts")
    add = parser.group("files")
    add("--input PATH ...", "images, videos, folders or 'patterns/*.jpg'; or webcam, webcam1, ... "
        "(default: none, see --serve)")  # fmt: skip
    add("--output DIR", "folder for annotated copies and COCO json (default: none)", type=Path)
    add("--overwrite", "replace the files of an earlier demo in --output")
    add("--batch-size N", "images that are read at once", 1, least=1)
    add("--max-frames N", "stop after this many frames of a video or a webcam (default: no limit)",
        type=int, least=1)  # fmt: skip
    add = parser.group("a page in the browser")
    add("--serve", "serve a page on which images can be dropped")
    add("--host HOST", "address to listen at; 127.0.0.1 is reached from this machine alone",
        "127.0.0.1")  # fmt: skip
    add("--port N", "port to listen at; 0: any free one", 8000, least=0, most=65535)
    add("--max-upload MB", "largest image file, in 10^6 bytes", 20.0)
    return parser


def _problem(args: argparse.Namespace) -> str:
    if not args.weights:
        return "--weights is empty; name the detector's model_final.pth"
    if args.serve:
        if args.input or args.output:
            return "--serve takes its images from the page: leave out --input and --output"
        legal = 0 < args.max_upload <= 1000
        wrong = f"--max-upload is {args.max_upload:g}; it must be above 0 and at most 1000 (MB)"
        return "" if legal else wrong
    if not args.input:
        return "there is nothing to look at: give --input PATH ..., or --serve"
    return "" if args.output else "--output DIR is missing: where annotated copies are written"


def main(arguments: list[str] | None = None) -> int:
    return argument_parser().run(lambda args: (_serve if args.serve else _run)(args), arguments)


def _run(args: argparse.Namespace) -> int:
    require_packages("cv2", needed_by="the demo")
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
    return run(args, load_detector(cfg, args), found, cfg.INPUT.MAX_IMAGE_PIXELS)


def _serve(args: argparse.Namespace) -> int:
    require_packages("cv2", "flask", "waitress", needed_by="--serve")
    from d2_isonet.demo import server
    from d2_isonet.demo.detector import load_detector, read_config

    cfg = read_config(args, min(args.threshold, server.LEAST_SCORE))
    with server.open_socket(args.host, args.port) as listening:  # before the weights are read
        return server.serve(load_detector(cfg, args), listening, args)
