#!/usr/bin/env python
"""Compose a small data set from photographs: classification folders and COCO-format scenes."""

import argparse
import sys
from pathlib import Path

from cutouts.dataset import SOURCES, prepare
from cutouts.packages import PackagesUnavailable
from cutouts.scales import SCALES


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--scale", choices=sorted(SCALES), default="small")
    parser.add_argument("--seed", type=int, default=0, help="decides split and pictures")
    parser.add_argument(
        "--source",
        choices=SOURCES,
        default="auto",
        help="debian: photographs from Debian packages; shapes: generated; "
        "auto: photographs, else shapes",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Prepare the data set and print what it holds."""
    options = parse_arguments(arguments)
    scale = SCALES[options.scale]
    try:
        print(prepare(options.output, scale, options.seed, options.source, options.workers))
    except (PackagesUnavailable, ValueError, OSError) as error:
        print(f"prepare_cutouts: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare_cutouts: stopped; the same command begins again.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
