"""One job, one picture: a classification image or a scene, written with its record."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .coco import box_of, polygons_of
from .compose import arrange, crop_photograph, draw_cutouts, draw_photograph, render, visible_masks
from .library import SPLITS, Library
from .scales import Scale

TASKS = ("classification", "detection")
JPEG_QUALITY = 92
IMAGE_VISIBILITY = 0.85  # of the one object of a classification image


@dataclass(frozen=True)
class Job:
    """Which picture: task "classification" or "detection", split and number."""

    task: str
    split: str
    index: int


@dataclass(frozen=True)
class Painter:
    """job -> record; the picture is written below folder. The seed alone decides what is in it."""

    libraries: Mapping[str, Library]
    scale: Scale
    seed: int
    folder: Path

    def __call__(self, job: Job) -> dict[str, Any]:
        paint = self.paint_image if job.task == "classification" else self.paint_scene
        pixels, record = paint(job, self.generator(job))
        path = self.folder / job.task / job.split / record["file_name"]
        Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)
        return record

    def generator(self, job: Job) -> np.random.Generator:
        """The random numbers of one picture, whichever process paints it and when."""
        key = [TASKS.index(job.task), SPLITS.index(job.split), job.index]
        return np.random.default_rng([self.seed, 3, *key])

    def paint_image(
        self, job: Job, generator: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A square picture of one object; the classes take turns."""
        library, side = self.libraries[job.split], self.scale.image_side
        label = library.classes[job.index % len(library.classes)]
        photograph = draw_photograph(library, generator)
        background = crop_photograph(photograph, (side, side), generator)
        cutouts = draw_cutouts(library, [label], generator)
        low, high = self.scale.image_object
        layers = arrange(
            cutouts, (low * side, high * side), background, IMAGE_VISIBILITY, generator
        )
        return render(background, layers), {
            "file_name": f"{label}/{label}_{job.index:06d}.jpg",
            "background": photograph.name,
            "cutout": cutouts[0].name,
        }

    def paint_scene(
        self, job: Job, generator: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A picture of several objects of random classes, with their boxes and masks."""
        library, scale = self.libraries[job.split], self.scale
        photograph = draw_photograph(library, generator)
        background = crop_photograph(photograph, scale.scene_size, generator)
        fewest, most = scale.objects
        numbers = generator.integers(
            len(library.classes), size=generator.integers(fewest, most + 1)
        )
        cutouts = draw_cutouts(library, [library.classes[n] for n in numbers], generator)
        layers = arrange(cutouts, scale.object_side, background, scale.visibility, generator)
        masks = visible_masks(layers, scale.scene_size)
        return render(background, layers), {
            "file_name": f"{job.index:06d}.jpg",
            "background": photograph.name,
            "objects": [
                {
                    "category_id": library.classes.index(layer.cutout.label) + 1,
                    "bbox": [float(value) for value in box_of(mask)],  # see polygons_of
                    "area": int(mask.sum()),
                    "segmentation": polygons_of(mask, scale.polygon_tolerance),
                    "cutout": layer.cutout.name,
                }
                for layer, mask in zip(layers, masks, strict=True)
            ],
        }
