#!/usr/bin/env python
"""See what a detector finds: in images, videos, a webcam, or on a page in the browser.

python tools/demo.py --config-file FILE --weights FILE --input photos/ --output output/demo
python tools/demo.py --config-file FILE --weights FILE --input clip.mp4 --output output/demo
python tools/demo.py --config-file FILE --weights FILE --serve

Ends with 1 where nothing could be read.
"""

import argparse
import sys

from d2_isonet.commands.demo import parse_args

# The rest takes seconds to import: only when the arguments are read, so that --help does not wait.


def main(args: argparse.Namespace) -> int:
    from d2_isonet.utils.messages import INTERRUPTED, readable_errors

    with readable_errors():
        try:
            return serve(args) if args.serve else look_at_files(args)
        except KeyboardInterrupt:  # before there was anything to keep
            print("interrupted", file=sys.stderr)
            return INTERRUPTED


def look_at_files(args: argparse.Namespace) -> int:
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


def serve(args: argparse.Namespace) -> int:
    from d2_isonet.demo import server
    from d2_isonet.demo.detector import load_detector, read_config

    cfg = read_config(args, min(args.threshold, server.LEAST_SCORE))
    with server.open_socket(args.host, args.port) as listening:  # before the weights are read
        return server.serve(load_detector(cfg, args), listening, args)


if __name__ == "__main__":
    sys.exit(main(parse_args(__doc__)))
