"""The data that cells are run on: real images that a fresh machine can fetch, or the user's own."""

import subprocess
import sys
from pathlib import Path

from .cells import REPOSITORY, Cell

_PREPARE = {
    "fashion_mnist": ["tools/prepare_fashion_mnist.py"],
    "cutouts": ["tools/prepare_cutouts.py", "--scale", "small"],
}


def prepare(name: str, folder: Path) -> None:
    """Make the data where it is not there yet; ends the program with the tool's message if not.

    "cutouts/classification" and "cutouts/detection" are parts of the data "cutouts".
    """
    name = name.split("/")[0]
    if name in _PREPARE:
        script, *options = _PREPARE[name]
        words = [sys.executable, REPOSITORY / script, "--output", folder / name, *options]
        if subprocess.call([str(w) for w in words]):
            sys.exit(f"{name}: the data could not be prepared, see above")
    elif name and not (folder / name / "train").is_dir():
        sys.exit(
            f"{name}: cannot be fetched from here; put its images into "
            f"{folder / name}/{{train,val}}/<class>/, or name another folder with --data"
        )


def data_arguments(cell: Cell, folder: Path) -> list[str]:
    """The arguments with which a script finds the data of this cell."""
    if cell.data == "":
        return []
    root = folder / cell.data
    if cell.data != "cutouts/detection":
        return ["--data-root", str(root)]
    words = []
    for split in ("train", "val"):
        words += [f"--{split}-json", str(root / f"instances_{split}.json")]
        words += [f"--{split}-images", str(root / split)]
    return words
