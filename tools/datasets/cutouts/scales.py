"""The number and size of the pictures, and the record of what a finished data set was made from."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from d2_isonet.utils.files import write_text

PHOTOGRAPHS_LIGHT = ("tuxpaint-data", "lomiri-wallpapers-16.04")


@dataclass(frozen=True)
class Scale:
    """Sizes of one data set; sides in pixels, numbers of pictures as (train, val)."""

    classes: tuple[str, ...]  # names in debian.CLASSES; the shapes source has its own
    background_packages: tuple[str, ...]
    scenes: tuple[int, int]
    scene_size: tuple[int, int]  # (width, height)
    objects: tuple[int, int]  # fewest and most per scene, both inclusive
    object_side: tuple[int, int]  # long side, log-uniform
    visibility: float  # least visible fraction of an object
    polygon_tolerance: float  # pixels; 0.5 keeps 0.9998 of the mask, 0.75 halves the json
    images: tuple[int, int]  # classification, all classes together
    image_side: int
    image_object: tuple[float, float]  # long side as a fraction of image_side, log-uniform


SMALL_CLASSES = (
    "bird", "flower", "fruit", "hoofed_mammal", "road_sign", "sea_animal", "vehicle",
)  # fmt: skip
FULL_CLASSES = SMALL_CLASSES + (
    "carnivore", "gravestone", "household", "instrument", "small_mammal", "tool", "vegetable",
)  # fmt: skip

SCALES = {
    "small": Scale(
        classes=SMALL_CLASSES, background_packages=PHOTOGRAPHS_LIGHT,
        scenes=(600, 120), scene_size=(192, 160), objects=(2, 4), object_side=(40, 100),
        visibility=0.4, polygon_tolerance=0.5,
        images=(4200, 700), image_side=112, image_object=(0.5, 0.95),
    ),
    "full": Scale(
        classes=FULL_CLASSES, background_packages=(*PHOTOGRAPHS_LIGHT, "mate-backgrounds"),
        scenes=(8000, 800), scene_size=(640, 480), objects=(3, 8), object_side=(70, 300),
        visibility=0.25, polygon_tolerance=0.75,
        images=(40000, 4000), image_side=144, image_object=(0.5, 0.95),
    ),
}  # fmt: skip

STAMP_NAME = "cutouts.json"
PARTIAL_NAME = ".partial"
CACHE_NAME = "cache"  # downloaded packages; a user may also copy them into it
FORMAT = 2  # increase it when the same parameters give other pictures


def parameters_of(scale: Scale, seed: int, source: str) -> dict[str, Any]:
    """Everything that determines the pixels, in types that json preserves."""
    values = {"format": FORMAT, "source": source, "seed": seed, **asdict(scale)}
    return json.loads(json.dumps(values))


def is_complete(folder: Path, parameters: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether the folder holds all named entries, made with exactly these parameters."""
    try:
        stamp = json.loads((folder / STAMP_NAME).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    made = stamp.get("complete") is True and stamp.get("parameters") == parameters
    return made and all((folder / name).exists() for name in names)


def claim(folder: Path) -> Path:
    """Mark the folder as a data set of this program and return an empty folder inside it.

    Raises:
        ValueError: the folder holds other files, which could be overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / STAMP_NAME).exists():
        if any(entry.name != CACHE_NAME for entry in folder.iterdir()):
            raise ValueError(
                f"{folder} is not empty and was not made by this program "
                f"(no {STAMP_NAME} in it): name an empty or a new folder."
            )
        _write_stamp(folder, complete=False)
    partial = folder / PARTIAL_NAME
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    return partial


def publish(folder: Path, parameters: Mapping[str, Any], names: Sequence[str]) -> None:
    """Move the named entries from the partial folder into place, then mark the data set complete.

    If the process is killed in between, the data set stays incomplete and the next run rebuilds it.
    """
    _write_stamp(folder, complete=False)
    for name in names:
        target = folder / name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        os.replace(folder / PARTIAL_NAME / name, target)
    (folder / PARTIAL_NAME).rmdir()
    _write_stamp(folder, complete=True, parameters=dict(parameters))


def _write_stamp(folder: Path, **stamp: Any) -> None:
    write_text(folder / STAMP_NAME, json.dumps(stamp, indent=1) + "\n")
