"""Compose a small data set from photographs: classification folders and COCO-format scenes."""

import argparse
import sys
from pathlib import Path

from ..packages import PackagesUnavailable
from .dataset import SOURCES, prepare
from .scales import SCALES


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, default=argparse.SUPPRESS, metavar="FOLDER",
        help="folder of the data set")  # fmt: skip
    add("--scale", choices=sorted(SCALES), default="small", help="number and size of the pictures")
    add("--seed", type=int, default=0, metavar="N", help="determines the split and the pictures")
    add("--source", choices=SOURCES, default="auto",
        help="debian: photographs from Debian packages; shapes: generated pictures; "
        "auto: photographs, or shapes if there are none")  # fmt: skip
    add("--workers", type=int, default=2, metavar="N", help="number of processes")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Prepare the data set, print its contents, and return the exit code."""
    options = parse_args(arguments)
    scale = SCALES[options.scale]
    try:
        print(prepare(options.output, scale, options.seed, options.source, options.workers))
    except (PackagesUnavailable, ValueError, OSError) as error:
        print(f"prepare_cutouts: {error}", file=sys.stderr)
        return 1
    return 0
