"""A data set in one folder: classification tree, COCO files, licences, README, contact sheet."""

import csv
import itertools
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tabulate import tabulate

from datasets.packages import PackagesUnavailable

from .debian import debian_material
from .library import SPLITS, Material, shapes_material, split_material
from .pictures import Job, Painter, ordered_map
from .scales import CACHE_NAME, Scale, claim, is_complete, parameters_of, publish

SOURCES = ("auto", "debian", "shapes")
ENTRIES = ("classification", "detection", "licences", "README.txt", "contact_sheet.jpg")
COLOURS = (
    (255, 60, 60), (60, 220, 60), (80, 120, 255), (255, 220, 0), (255, 0, 255), (0, 230, 230),
)  # fmt: skip
SHEET_WIDTH = 1600
SHEET_SCENES, SHEET_IMAGES = 8, 3  # per split; per class and split

TEXT = """Pictures composed from cut-outs and backgrounds, with exact boxes and masks.
Made by tools/prepare_cutouts.py, seed {seed}. Generated on this machine; do not redistribute
without the licences of the sources below.

classification/{{train,val}}/<class>/*.jpg   {side}x{side} pixels, one object each
classification/sources_{{train,val}}.csv     which cut-out and background are in which picture
detection/{{train,val}}/*.jpg                {size} pixels
detection/instances_{{train,val}}.json       COCO format, polygons
contact_sheet.jpg                          samples, with boxes and masks drawn
licences/                                  copyright files of the packages

No cut-out and no background of train is in val, in either task.

{table}

Sources and licences
{credits}
"""


def prepare(folder: Path, scale: Scale, seed: int, source: str, workers: int) -> str:
    """Make the data set, or reuse a complete one; return the text of its README.

    With the source "auto", if the Debian packages are unavailable, it prints the reason and
    generates shapes.

    Raises:
        PackagesUnavailable: the source is "debian" and the packages are unavailable.
        ValueError: the seed is negative, or the folder holds other files.
    """
    if seed < 0:
        raise ValueError(f"seed {seed} is negative: use 0 or more.")
    for candidate in ("debian", "shapes") if source == "auto" else (source,):
        parameters = parameters_of(scale, seed, candidate)
        if is_complete(folder, parameters, ENTRIES):
            return f"{folder} holds this data set already.\n" + (folder / "README.txt").read_text()
        partial = claim(folder)
        try:
            if candidate == "debian":
                material = debian_material(scale, folder / CACHE_NAME)
            else:
                material = shapes_material(seed)
        except PackagesUnavailable as reason:
            if source == "debian":
                raise
            reason = f"No photographs, because {reason}. Using generated shapes instead."
            print(reason, file=sys.stderr)
            continue
        for note in material.notes:
            print(note, file=sys.stderr)
        text = build(partial, material, scale, seed, workers)
        publish(folder, parameters, ENTRIES)
        return text
    raise AssertionError("the last candidate either returns or raises")


def build(folder: Path, material: Material, scale: Scale, seed: int, workers: int) -> str:
    """Write all pictures and files into an empty folder; return the text of README.txt."""
    libraries = split_material(material, seed)
    records = _paint(Painter(libraries, scale, seed, folder), workers)
    instances = {}
    for split in SPLITS:
        with (folder / "classification" / f"sources_{split}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["file_name", "cutout", "background"])
            writer.writeheader()
            writer.writerows(records["classification", split])
        scenes = records["detection", split]
        instances[split] = coco_dataset(scenes, libraries[split].classes, scale.scene_size)
        path = folder / "detection" / f"instances_{split}.json"
        path.write_text(json.dumps(instances[split], separators=(",", ":")))
    (folder / "licences").mkdir()
    for name, text in material.licences.items():
        (folder / "licences" / f"{name}.txt").write_text(text)
    text = TEXT.format(
        seed=seed,
        side=scale.image_side,
        size="{}x{}".format(*scale.scene_size),
        table=summary_table(libraries, records, instances),
        credits="\n".join(f"- {line}" for line in material.credits),
    )
    (folder / "README.txt").write_text(text)
    contact_sheet(folder, instances).save(folder / "contact_sheet.jpg", quality=90)
    return text


def _paint(painter: Painter, workers: int) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Paint all pictures; return their records by task and split, in order."""
    scale, jobs, records = painter.scale, [], {}
    for task, counts in (("classification", scale.images), ("detection", scale.scenes)):
        for split, count in zip(SPLITS, counts, strict=True):
            jobs += [Job(task, split, index) for index in range(count)]
            records[task, split] = []
            folders = painter.libraries[split].classes if task == "classification" else ["."]
            for name in folders:
                (painter.folder / task / split / name).mkdir(parents=True)
    for job, record in zip(jobs, ordered_map(painter, jobs, workers, "pictures"), strict=True):
        records[job.task, job.split].append(record)
    return records


def coco_dataset(
    scenes: Sequence[dict[str, Any]], classes: Sequence[str], size: tuple[int, int]
) -> dict[str, Any]:
    """The content of an instances_*.json file; ids start at 1, in the order of the scenes."""
    images, annotations = [], []
    for image_id, scene in enumerate(scenes, start=1):
        names = {key: scene[key] for key in ("file_name", "background")}
        images.append({"id": image_id, "width": size[0], "height": size[1], **names})
        for instance in scene["objects"]:
            ids = {"id": len(annotations) + 1, "image_id": image_id, "iscrowd": 0}
            annotations.append({**ids, **instance})
    return {
        "info": {"description": "cut-outs composed on backgrounds; see README.txt"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, start=1)],
    }


def summary_table(
    libraries: Mapping[str, Material], records: Mapping[tuple[str, str], Any], instances: Mapping
) -> str:
    """A row per class: cut-outs, classification pictures and instances of each split."""
    columns, scenes = {"class": [*libraries["train"].classes, "all"]}, []
    for split, library in libraries.items():
        labels = Counter(r["file_name"].split("/")[0] for r in records["classification", split])
        objects = Counter(a["category_id"] for a in instances[split]["annotations"])
        cutouts = [len(library.cutouts[label]) for label in library.classes]
        images = [labels[label] for label in library.classes]
        found = [objects[number] for number in range(1, len(library.classes) + 1)]
        for name, column in (("cut-outs", cutouts), ("images", images), ("instances", found)):
            columns[f"{split} {name}"] = [*column, sum(column)]
        number = len(records["detection", split])
        scenes.append(f"{split}: {number} scenes, {len(library.photographs)} backgrounds")
    alignment = ["left"] + ["right"] * (len(columns) - 1)
    rows = [list(columns), *zip(*columns.values(), strict=True)]
    return tabulate(rows, tablefmt="plain", colalign=alignment) + "\n" + ", ".join(scenes)


def contact_sheet(folder: Path, instances: Mapping[str, Mapping]) -> Image.Image:
    """Scenes without and with boxes and masks side by side, then classification pictures."""
    strips = []
    for split in SPLITS:
        scenes = []
        for image in instances[split]["images"][:SHEET_SCENES]:
            bare = np.asarray(Image.open(folder / "detection" / split / image["file_name"]))
            mine = [a for a in instances[split]["annotations"] if a["image_id"] == image["id"]]
            drawn = np.ascontiguousarray(bare)
            for annotation, colour in zip(mine, itertools.cycle(COLOURS), strict=False):
                drawn = _draw(drawn, annotation, colour)
            scenes += [bare, drawn]
        strips.append(_sheet(scenes, per_row=8))
        images = [
            np.asarray(Image.open(path))
            for label in sorted((folder / "classification" / split).iterdir())
            for path in sorted(label.iterdir())[:SHEET_IMAGES]
        ]
        strips.append(_sheet(images, per_row=14))
    return Image.fromarray(np.concatenate(strips))


def _draw(picture: np.ndarray, annotation: Mapping[str, Any], colour: tuple) -> np.ndarray:
    polygons = [
        np.rint(np.reshape(polygon, (-1, 2)) * 16 - 8).astype(np.int32)  # corners to pixel centres
        for polygon in annotation["segmentation"]
    ]
    filled = cv2.fillPoly(picture.copy(), polygons, colour, shift=4)
    picture = cv2.addWeighted(filled, 0.45, picture, 0.55, 0)
    left, top, width, height = map(int, annotation["bbox"])
    return cv2.rectangle(picture, (left, top), (left + width - 1, top + height - 1), colour, 1)


def _sheet(tiles: list[np.ndarray], per_row: int) -> np.ndarray:
    """White of SHEET_WIDTH with the tiles in rows of `per_row`, 2 pixels between rows."""
    width = SHEET_WIDTH // per_row
    height = round(width * tiles[0].shape[0] / tiles[0].shape[1])
    rows = -(-len(tiles) // per_row)
    sheet = np.full((rows, height + 2, SHEET_WIDTH, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        small = cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA)
        sheet[i // per_row, :height, i % per_row * width :][:, :width] = small
    return sheet.reshape(-1, SHEET_WIDTH, 3)
