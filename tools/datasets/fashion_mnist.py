"""Fashion-MNIST from a Debian package as an image folder."""

import gzip
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .packages import fetch_packages, unpack_package

PACKAGE = "dataset-fashion-mnist"
FOLDER = "usr/share/datasets/fashion-mnist"
SPLITS = {"train": ("train", 60000), "val": ("t10k", 10000)}
CLASSES = (
    "0_t_shirt", "1_trouser", "2_pullover", "3_dress", "4_coat",
    "5_sandal", "6_shirt", "7_sneaker", "8_bag", "9_ankle_boot",
)  # fmt: skip
FINISHED = "README.txt"


def prepare(output: Path) -> str:
    """Fetch the package and write both splits, unless they are complete; return their contents."""
    contents = f"{output}: 60,000 training and 10,000 validation images of 10 classes"
    if (output / FINISHED).is_file():
        return contents
    archive = fetch_packages([PACKAGE], output / "cache")[0]
    with tempfile.TemporaryDirectory(dir=output) as folder:
        unpack_package(archive, Path(folder), (".gz", "/copyright"))
        for split, (name, count) in SPLITS.items():
            write_split(Path(folder) / FOLDER, name, count, output / split)
    (output / FINISHED).write_text(
        f"Fashion-MNIST (Xiao, Rasul, Vollgraf 2017; MIT licence) from {archive.name}\n"
    )
    return contents


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
