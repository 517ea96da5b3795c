"""The command line of the demo; reading it imports neither torch nor more."""

import argparse
from pathlib import Path

MOST_THREADS = 1024


def parse_args(description: str, arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="yaml of the detector")
    add("--weights", required=True, metavar="FILE", help="its model_final.pth")
    add("--threshold", type=float, default=0.5, help="least score of what is shown (0.5)")
    add("--annotations", metavar="FILE", help="COCO json: class names, and image ids by file name")
    add("--fuse", action="store_true", help="join convolutions and activations: faster on a CPU")
    add("--threads", type=int, default=0, help="of the CPU (0: as many as torch takes)")
    add("--trust-pickle", action="store_true", help="read .pkl weights, which can run any code")
    add(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        help="at the end: KEY VALUE or KEY=VALUE pairs that change the config",
    )
    _add_files(parser)
    _add_server(parser)
    args = parser.parse_args(arguments)
    problem = _problem(args)
    if problem:
        parser.error(problem)
    return args


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("files").add_argument
    add(
        "--input",
        nargs="+",
        metavar="PATH",
        help="images, videos, folders or 'patterns/*.jpg'; or webcam, webcam1, ...",
    )
    add("--output", type=Path, metavar="FOLDER", help="for annotated copies and COCO json")
    add("--overwrite", action="store_true", help="replace what an earlier demo left in --output")
    add("--batch-size", type=int, default=1, help="pictures that are read at once (1)")
    add("--max-frames", type=int, metavar="N", help="of each video or of the webcam, then stop")


def _add_server(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("a page in the browser").add_argument
    add("--serve", action="store_true", help="show a page on which images can be dropped")
    add("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)")
    add("--port", type=int, default=8000, help="0 for any that is free (8000)")
    add("--max-upload", type=float, default=20.0, metavar="MB", help="of an image file (20)")


def _problem(args: argparse.Namespace) -> str | None:
    """What is wrong with the arguments, taken by themselves."""
    if not args.weights:
        return "--weights is empty; name the detector's model_final.pth"
    if not 0 <= args.threshold <= 1:
        return f"--threshold is {args.threshold:g}; it must be from 0 to 1"
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
        return "--output FOLDER is missing: where annotated copies are written"
    return None


def _server_problem(args: argparse.Namespace) -> str | None:
    if args.input or args.output:
        return "--serve takes its images from the page: leave out --input and --output"
    if not 0 <= args.port <= 65535:
        return f"--port is {args.port}; it must be from 0 to 65535"
    if not 0 < args.max_upload <= 1000:
        return f"--max-upload is {args.max_upload:g}; it must be above 0 and at most 1000 (MB)"
    return None
