"""What was made, for people: a table, a text with the licences, a sheet of samples."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from .library import SPLITS, Library, Material
from .scales import Scale

COLOURS = (
    (255, 60, 60),
    (60, 220, 60),
    (80, 120, 255),
    (255, 220, 0),
    (255, 0, 255),
    (0, 230, 230),
)
SHEET_WIDTH = 1600
SHEET_SCENES, SHEET_IMAGES = 8, 3  # of a split; of a class and split

TEXT = """Pictures composed from cut-outs and backgrounds, with exact boxes and masks.
Made by tools/prepare_cutouts.py, seed {seed}. Generated on this machine; do not redistribute
without the licences of the sources below.

classification/{{train,val}}/<class>/*.jpg   {side}x{side} pixels, one object each
classification/sources_{{train,val}}.csv     which cut-out and background are in which picture
detection/{{train,val}}/*.jpg                {width}x{height} pixels
detection/instances_{{train,val}}.json       COCO format, polygons
contact_sheet.jpg                          samples, with boxes and masks drawn
licences/                                  copyright files of the packages

No cut-out and no background of train is in val, in either task.

{table}

Sources and licences
{credits}
"""


def summary_table(libraries: Mapping[str, Library], counts: Mapping[str, Any]) -> str:
    """Rows of classes; for each split cut-outs, classification pictures and instances."""
    rows = [("class", *(f"{split} {what}" for split in SPLITS for what in _COLUMNS))]
    for number, label in enumerate(libraries["train"].classes, start=1):
        cells = [label]
        for split in SPLITS:
            cells += _cells(libraries[split], counts[split], label, number)
        rows.append(tuple(cells))
    totals = [sum(int(row[column]) for row in rows[1:]) for column in range(1, len(rows[0]))]
    rows.append(("all", *map(str, totals)))
    scenes = ", ".join(
        f"{split}: {len(counts[split]['instances']['images'])} scenes, "
        f"{len(libraries[split].photographs)} backgrounds"
        for split in SPLITS
    )
    return "\n".join(_align(rows)) + "\n" + scenes


_COLUMNS = ("cut-outs", "images", "instances")


def _cells(library: Library, counts: Mapping[str, Any], label: str, number: int) -> list[str]:
    images = Counter(record["file_name"].split("/")[0] for record in counts["images"])
    instances = Counter(a["category_id"] for a in counts["instances"]["annotations"])
    return [str(n) for n in (len(library.cutouts[label]), images[label], instances[number])]


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]


def describe(material: Material, scale: Scale, seed: int, table: str) -> str:
    """The text of README.txt."""
    width, height = scale.scene_size
    credits = "\n".join(f"- {line}" for line in material.credits)
    sizes = {"side": scale.image_side, "width": width, "height": height}
    return TEXT.format(seed=seed, table=table, credits=credits, **sizes)


def contact_sheet(folder: Path) -> Image.Image:
    """Scenes with boxes and masks drawn beside the bare ones, then classification pictures."""
    strips = []
    for split in SPLITS:
        scenes = [tile for pair in _scenes(folder, split) for tile in pair]
        strips += _rows(scenes, per_row=8)
        images = [
            np.asarray(Image.open(path))
            for label in sorted((folder / "classification" / split).iterdir())
            for path in sorted(label.iterdir())[:SHEET_IMAGES]
        ]
        strips += _rows(images, per_row=14)
    return Image.fromarray(np.concatenate(strips))


def _scenes(folder: Path, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    dataset = json.loads((folder / "detection" / f"instances_{split}.json").read_text())
    pairs = []
    for image in dataset["images"][:SHEET_SCENES]:
        bare = np.asarray(Image.open(folder / "detection" / split / image["file_name"]))
        drawn = np.ascontiguousarray(bare)
        mine = [a for a in dataset["annotations"] if a["image_id"] == image["id"]]
        for number, annotation in enumerate(mine):
            drawn = _draw(drawn, annotation, COLOURS[number % len(COLOURS)])
        pairs.append((bare, drawn))
    return pairs


def _draw(picture: np.ndarray, annotation: Mapping[str, Any], colour: tuple) -> np.ndarray:
    polygons = [
        np.rint(np.reshape(polygon, (-1, 2)) * 16 - 8).astype(np.int32)  # corners to pixel centres
        for polygon in annotation["segmentation"]
    ]
    filled = cv2.fillPoly(picture.copy(), polygons, colour, shift=4)
    picture = cv2.addWeighted(filled, 0.45, picture, 0.55, 0)
    left, top, width, height = map(int, annotation["bbox"])
    return cv2.rectangle(picture, (left, top), (left + width - 1, top + height - 1), colour, 1)


def _rows(tiles: list[np.ndarray], per_row: int) -> list[np.ndarray]:
    """Strips of SHEET_WIDTH with per_row tiles each, the last one filled with white."""
    width = SHEET_WIDTH // per_row
    height = round(width * tiles[0].shape[0] / tiles[0].shape[1])
    resized = [cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA) for tile in tiles]
    strips = []
    for start in range(0, len(resized), per_row):
        strip = np.full((height + 2, SHEET_WIDTH, 3), 255, np.uint8)
        row = np.concatenate(resized[start : start + per_row], axis=1)
        strip[:height, : row.shape[1]] = row
        strips.append(strip)
    return strips
