"""The commands that prepare a data set: the cut-outs, and Fashion-MNIST as an image folder."""

import argparse
import gzip
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .cutouts.dataset import SOURCES, prepare
from .cutouts.scales import SCALES
from .packages import PackagesUnavailable, fetch_packages, unpack_package

PACKAGE = "dataset-fashion-mnist"
FOLDER = "usr/share/datasets/fashion-mnist"
SPLITS = {"train": ("train", 60000), "val": ("t10k", 10000)}
CLASSES = (
    "0_t_shirt", "1_trouser", "2_pullover", "3_dress", "4_coat",
    "5_sandal", "6_shirt", "7_sneaker", "8_bag", "9_ankle_boot",
)  # fmt: skip
FINISHED = "README.txt"


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
    return _run(parser, lambda: write_fashion_mnist(args.output))


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


def write_fashion_mnist(output: Path) -> str:
    """Fetch the package and write both splits, unless they are complete; return their contents."""
    if not (output / FINISHED).is_file():
        archive = fetch_packages([PACKAGE], output / "cache")[0]
        with tempfile.TemporaryDirectory(dir=output) as folder:
            unpack_package(archive, Path(folder), (".gz", "/copyright"))
            for split, (name, count) in SPLITS.items():
                write_split(Path(folder) / FOLDER, name, count, output / split)
        licence = "Fashion-MNIST (Xiao, Rasul, Vollgraf 2017; MIT licence)"
        (output / FINISHED).write_text(f"{licence} from {archive.name}\n")
    return f"{output}: 60,000 training and 10,000 validation images of 10 classes"


def write_split(source: Path, name: str, count: int, target: Path) -> None:
    """Write the images of one split as target/<class>/<number>.png.

    Raises:
        ValueError: the files do not hold `count` images.
    """
    images = _read_idx(source / f"{name}-images-idx3-ubyte.gz", header=16)
    labels = _read_idx(source / f"{name}-labels-idx1-ubyte.gz", header=8)
    if images.size != count * 28 * 28 or labels.size != count:
        raise ValueError(f"{source}: {labels.size} labels where {count} images are expected")
    for class_name in CLASSES:
        (target / class_name).mkdir(parents=True, exist_ok=True)
    pairs = zip(images.reshape(-1, 28, 28), labels, strict=True)
    for i, (image, label) in enumerate(tqdm(pairs, desc=target.name, total=count, unit="image")):
        Image.fromarray(image).save(target / CLASSES[label] / f"{i:05d}.png")


def _read_idx(path: Path, header: int) -> np.ndarray:
    """The bytes of a gzipped IDX file after its header."""
    with gzip.open(path) as file:
        return np.frombuffer(file.read()[header:], np.uint8)
