"""Paint one picture per job, a classification image or a scene, and record its annotations."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from .compose import arrange, crop_photograph, draw, render, visible_masks
from .library import SPLITS, Material
from .scales import Scale

TASKS = ("classification", "detection")
JPEG_QUALITY = 92
IMAGE_VISIBILITY = 0.85  # of the only object of a classification image
SMALLEST_HOLE = 4  # pixels; smaller holes are ignored
JOBS_AT_ONCE = 16


Painted = tuple[np.ndarray, dict[str, Any]]  # pixels (H, W, 3) and record


@dataclass(frozen=True)
class Job:
    """The picture to paint: its task ("classification" or "detection"), split and number."""

    task: str
    split: str
    index: int


@dataclass(frozen=True)
class Painter:
    """Paints the picture of a job below `folder` and returns its record; the seed determines it."""

    libraries: Mapping[str, Material]
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
        """The random numbers of one picture, the same in every process and order."""
        key = [TASKS.index(job.task), SPLITS.index(job.split), job.index]
        return np.random.default_rng([self.seed, 3, *key])

    def paint_image(self, job: Job, generator: np.random.Generator) -> Painted:
        """A square picture of one object; the classes alternate."""
        library, side = self.libraries[job.split], self.scale.image_side
        label = library.classes[job.index % len(library.classes)]
        photograph = draw(library.photographs, generator)
        background = crop_photograph(photograph, (side, side), generator)
        cutout = draw(library.cutouts[label], generator)
        low, high = self.scale.image_object
        sides = (low * side, high * side)
        layers = arrange([cutout], sides, background, IMAGE_VISIBILITY, generator)
        name = f"{label}/{label}_{job.index:06d}.jpg"
        record = {"file_name": name, "background": photograph.name, "cutout": cutout.name}
        return render(background, layers), record

    def paint_scene(self, job: Job, generator: np.random.Generator) -> Painted:
        """A picture of several objects of random classes, with their boxes and masks."""
        library, scale = self.libraries[job.split], self.scale
        photograph = draw(library.photographs, generator)
        background = crop_photograph(photograph, scale.scene_size, generator)
        fewest, most = scale.objects
        number = generator.integers(fewest, most + 1)
        labels = [library.classes[i] for i in generator.integers(len(library.classes), size=number)]
        cutouts = [draw(library.cutouts[label], generator) for label in labels]
        layers = arrange(cutouts, scale.object_side, background, scale.visibility, generator)
        masks = visible_masks(layers, scale.scene_size)
        objects = [
            {
                "category_id": library.classes.index(layer.cutout.label) + 1,
                "bbox": [float(value) for value in box_of(mask)],  # see polygons_of
                "area": int(mask.sum()),
                "segmentation": polygons_of(mask, scale.polygon_tolerance),
                "cutout": layer.cutout.name,
            }
            for layer, mask in zip(layers, masks, strict=True)
        ]
        name = f"{job.index:06d}.jpg"
        record = {"file_name": name, "background": photograph.name, "objects": objects}
        return render(background, layers), record


def box_of(mask: np.ndarray) -> list[int]:
    """[x, y, width, height] of a non-empty mask (H, W), in whole pixels."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]


def polygons_of(mask: np.ndarray, tolerance: float) -> list[list[float]]:
    """One polygon [x0, y0, x1, y1, ...] per connected part of a non-empty mask (H, W).

    An outline may deviate from the mask by `tolerance` pixels. The corners lie on pixel borders,
    not on pixel centres: with tolerance 0 the rasterized polygons are exactly the mask. COCO
    polygons have no holes, so a cut of zero width joins each hole to its outline. Coordinates are
    floats because detectron2 resizes them in place, which would truncate integers.
    """
    left, top, width, height = box_of(mask)
    inside = mask[top : top + height, left : left + width].astype(np.uint8)
    tripled = inside.repeat(3, axis=0).repeat(3, axis=1)
    contours, hierarchy = cv2.findContours(tripled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for index, contour in enumerate(contours):
        if hierarchy[0][index][3] >= 0:
            continue  # a hole, which its outline includes
        outline = _simplify(_pixel_borders(contour), tolerance)
        for hole in _holes(contours, hierarchy[0], index):
            outline = _join(outline, _simplify(hole, tolerance))
        polygons.append((outline + (left, top)).astype(float).reshape(-1).tolist())
    return polygons


def _pixel_borders(contour: np.ndarray) -> np.ndarray:
    """Convert the outline of a mask of 3x3 blocks to corners of pixels: (K, 2)."""
    corners = (contour.reshape(-1, 2) + 1) // 3
    moved = np.any(corners != np.roll(corners, 1, axis=0), axis=1)
    return corners[moved]


def _holes(contours: Sequence[np.ndarray], hierarchy: np.ndarray, outline: int) -> list[np.ndarray]:
    holes, index = [], hierarchy[outline][2]
    while index >= 0:
        border = _pixel_borders(contours[index])
        if cv2.contourArea(border.astype(np.float32)) >= SMALLEST_HOLE:
            holes.append(border)
        index = hierarchy[index][0]
    return holes


def _simplify(corners: np.ndarray, tolerance: float) -> np.ndarray:
    simple = cv2.approxPolyDP(corners.astype(np.int32)[:, None], tolerance, closed=True)[:, 0]
    return simple if len(simple) >= 3 else corners


def _join(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Extend the outline by the shortest cut to the hole, the hole itself, and the cut back."""
    distances = ((outline[:, None] - hole[None]) ** 2).sum(2)
    start, entry = np.unravel_index(distances.argmin(), distances.shape)
    around = np.roll(hole, -entry, axis=0)
    return np.concatenate([outline[: start + 1], around, around[:1], outline[start:]])


class _Worker:
    """The function of a worker process, sent once instead of with every job."""

    function: Callable[[Any], Any]

    @classmethod
    def start(cls, function: Callable[[Any], Any]) -> None:
        cv2.setNumThreads(1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the main process ends the pool
        cls.function = staticmethod(function)

    @classmethod
    def run(cls, job: Any) -> Any:
        return cls.function(job)


def ordered_map(
    function: Callable[[Any], Any], jobs: Sequence[Any], workers: int, description: str
) -> Iterator[Any]:
    """Apply the function to each job, in the order of the jobs for any number of workers.

    With several workers the function and its results must be picklable. Progress goes to stderr.
    """
    interval = 0.5 if sys.stderr.isatty() else 10.0  # few lines in a log file
    progress = {"total": len(jobs), "desc": description, "mininterval": interval}
    if workers <= 1:
        yield from tqdm(map(function, jobs), **progress)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    with ProcessPoolExecutor(workers, context, _Worker.start, (function,)) as pool:
        yield from tqdm(pool.map(_Worker.run, jobs, chunksize=JOBS_AT_ONCE), **progress)
