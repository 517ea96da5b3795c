"""The commands that prepare a data set: prepare_cutouts.py and prepare_fashion_mnist.py."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from datasets.cutouts.dataset import SOURCES, prepare
from datasets.cutouts.scales import SCALES

from . import fashion_mnist
from .packages import PackagesUnavailable


def prepare_cutouts(arguments: list[str] | None = None) -> int:
    """Compose a small data set from photographs: classification folders and COCO-format scenes."""
    parser = _parser(prepare_cutouts.__doc__)
    add = parser.add_argument
    add("--scale", choices=sorted(SCALES), default="small",
        help="number and size of the pictures (small)")  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="determines split and pictures (0)")
    add("--source", choices=SOURCES, default="auto",
        help="debian: photographs from Debian packages; shapes: generated pictures; "
        "auto: photographs, or shapes if there are none (auto)")  # fmt: skip
    add("--workers", type=int, default=2, metavar="N", help="number of processes (2)")
    args = parser.parse_args(arguments)
    scale = SCALES[args.scale]
    return _run(parser, lambda: prepare(args.output, scale, args.seed, args.source, args.workers))


def prepare_fashion_mnist(arguments: list[str] | None = None) -> int:
    """Write Fashion-MNIST (70,000 photographs, 28x28, 10 classes, MIT) as an image folder."""
    parser = _parser(prepare_fashion_mnist.__doc__)
    args = parser.parse_args(arguments)
    return _run(parser, lambda: fashion_mnist.prepare(args.output))


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder of the data set")
    return parser


def _run(parser: argparse.ArgumentParser, prepare: Callable[[], str]) -> int:
    """Print the contents of the data set, or the reason why it cannot be prepared."""
    try:
        print(prepare())
    except (PackagesUnavailable, ValueError, OSError) as error:
        print(f"{Path(parser.prog).stem}: {error}", file=sys.stderr)
        return 1
    return 0
