"""A whole data set in one folder: classification tree, COCO files, contact sheet, credits."""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import stamp
from .debian import debian_material
from .library import SPLITS, Library, Material, split_material
from .packages import PackagesUnavailable
from .parallel import ordered_map
from .pictures import Job, Painter
from .report import contact_sheet, describe, summary_table
from .scales import Scale
from .shapes import shapes_material

SOURCES = ("auto", "debian", "shapes")
ENTRIES = ("classification", "detection", "licences", "README.txt", "contact_sheet.jpg")


def prepare(folder: Path, scale: Scale, seed: int, source: str, workers: int) -> str:
    """Make the data set in folder, or keep the whole one that is there; returns what it holds.

    source "auto" tries the Debian packages, then says why not and generates shapes.
    Raises PackagesUnavailable for source "debian", ValueError where folder is not ours.
    """
    if seed < 0:
        raise ValueError(f"seed {seed} is negative: use 0 or more.")
    for candidate in ("debian", "shapes") if source == "auto" else (source,):
        parameters = stamp.parameters_of(scale, seed, candidate)
        if stamp.is_complete(folder, parameters, ENTRIES):
            return f"{folder} holds this data set already.\n" + (folder / "README.txt").read_text()
        partial = stamp.claim(folder)
        try:
            material = _material(candidate, scale, seed, folder / stamp.CACHE_NAME)
        except PackagesUnavailable as reason:
            if source == "debian":
                raise
            _say(f"No photographs, because {reason}. Using generated shapes instead.")
            continue
        for note in material.notes:
            _say(note)
        text = build(partial, material, scale, seed, workers)
        stamp.publish(folder, parameters, ENTRIES)
        return text
    raise AssertionError("the last candidate either returns or raises")


def build(folder: Path, material: Material, scale: Scale, seed: int, workers: int) -> str:
    """Write every picture and file of the data set into an empty folder."""
    libraries = split_material(material, seed)
    _make_folders(folder, libraries["train"].classes)
    records = _paint(Painter(libraries, scale, seed, folder), scale, workers)
    counts = {}
    for split in SPLITS:
        images, scenes = records["classification", split], records["detection", split]
        _write_sources(folder / "classification" / f"sources_{split}.csv", images)
        instances = coco_dataset(scenes, libraries[split], scale)
        path = folder / "detection" / f"instances_{split}.json"
        path.write_text(json.dumps(instances, separators=(",", ":")))
        counts[split] = {"images": images, "instances": instances}
    _write_licences(folder / "licences", material)
    text = describe(material, scale, seed, summary_table(libraries, counts))
    (folder / "README.txt").write_text(text)
    contact_sheet(folder).save(folder / "contact_sheet.jpg", quality=90)
    return text


def coco_dataset(
    scenes: Sequence[dict[str, Any]], library: Library, scale: Scale
) -> dict[str, Any]:
    """The content of an instances_*.json file; ids count from 1 in the order of the scenes."""
    width, height = scale.scene_size
    images, annotations = [], []
    for image_id, scene in enumerate(scenes, start=1):
        names = {key: scene[key] for key in ("file_name", "background")}
        images.append({"id": image_id, "width": width, "height": height, **names})
        for instance in scene["objects"]:
            ids = {"id": len(annotations) + 1, "image_id": image_id, "iscrowd": 0}
            annotations.append({**ids, **instance})
    categories = [
        {"id": number, "name": name} for number, name in enumerate(library.classes, start=1)
    ]
    info = {"description": "cut-outs composed on backgrounds; see README.txt"}
    return {
        "info": info,
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def _material(source: str, scale: Scale, seed: int, cache: Path) -> Material:
    return debian_material(scale, cache) if source == "debian" else shapes_material(seed)


def _make_folders(folder: Path, classes: Sequence[str]) -> None:
    for split in SPLITS:
        (folder / "detection" / split).mkdir(parents=True)
        for label in classes:
            (folder / "classification" / split / label).mkdir(parents=True)


def _paint(
    painter: Painter, scale: Scale, workers: int
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Records by task and split, in the order of their numbers."""
    jobs = [
        Job(task, split, index)
        for task, counts in (("classification", scale.images), ("detection", scale.scenes))
        for split, count in zip(SPLITS, counts, strict=True)
        for index in range(count)
    ]
    records: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for job, record in zip(jobs, ordered_map(painter, jobs, workers, "pictures"), strict=True):
        records.setdefault((job.task, job.split), []).append(record)
    return records


def _write_licences(folder: Path, material: Material) -> None:
    folder.mkdir()
    for name, text in material.licences.items():
        (folder / f"{name}.txt").write_text(text)


def _write_sources(path: Path, images: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", "cutout", "background"])
        writer.writeheader()
        writer.writerows(images)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
