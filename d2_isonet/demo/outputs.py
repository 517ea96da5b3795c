"""What a demo writes: annotated copies, and results.json with images.json in COCO's format."""

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances

from d2_isonet.data.categories import Categories
from d2_isonet.data.coco_json import read_annotations
from d2_isonet.utils.files import as_save_error, write_text
from d2_isonet.utils.messages import UserError, shortened

from .sources import Found, Source
from .streams import Picture
from .videos import FrameWriter

IMAGES, RESULTS = "images.json", "results.json"
_WRITTEN_SUFFIXES = {"image": (".jpg", ".jpeg", ".png"), "video": (".mp4",), "webcam": ()}
_JPEG_QUALITY = 95  # of 100


def target_of(source: Source) -> str:
    """The name of a source's annotated copy in the output folder.

    It is the name of the source, followed by .png or .mp4 if we write no files of its own type.
    """
    if source.name.lower().endswith(_WRITTEN_SUFFIXES[source.kind]):
        return source.name
    return source.name + (".png" if source.kind == "image" else ".mp4")


def check_targets(found: Found, folder: Path, overwrite: bool) -> None:
    """Raise UserError if a copy would replace another file, or cannot be written.

    Args:
        overwrite: allows to replace the files of an earlier demo, but never an input.
    """
    folder = Path(os.path.abspath(folder.expanduser()))
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise UserError(f"--output: {existing} is not a folder", "name another")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"--output: {existing} cannot be written to", "name another folder")
    names = [IMAGES, RESULTS, *map(target_of, found.sources)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"--input: two files would both be written to {shortened(twice)}")
    _check_inputs(found, folder, names)
    old = [name for name in names if os.path.lexists(folder / name)]
    if old and not overwrite:
        files = f"{len(old)} of the files that would be written: {shortened(old)}"
        what = f"--output: {folder} already has {files}"
        raise UserError(what, "name another folder, or add --overwrite")


def _check_inputs(found: Found, folder: Path, names: Sequence[str]) -> None:
    """Raise UserError if a copy would replace an input, or would be an input of the next demo."""
    real = Path(os.path.realpath(folder))
    for given in found.folders:
        if real.is_relative_to(os.path.realpath(given)):
            why = "so that the next demo would read the copies as images"
            what = f"--output: {folder} lies in the --input folder {given}, {why}"
            raise UserError(what, "name a folder outside")
    inputs = {os.path.realpath(source.path) for source in found.sources}
    if lost := [name for name in names if os.path.realpath(folder / name) in inputs]:
        what = f"--output: {folder} holds the input, and {shortened(lost)} would be overwritten"
        raise UserError(what, "name another folder")


class Sink:
    """Writes annotated copies below `folder`. The frames of one source must follow each other."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: FrameWriter | None = None
        self._start = 0.0

    def write(self, picture: Picture, annotated: np.ndarray) -> None:
        """Write the copy of an image, or add a frame to that of a video.

        Args:
            annotated: the pixels to write, (H, W, 3), uint8, BGR.

        Raises:
            SaveError: they cannot be written.
        """
        path = self.folder / target_of(picture.source)
        if self._writer is not None and self._writer.path != path:
            self.close()
        if picture.source.kind == "image":
            _write_image(path, annotated)
            return
        if self._writer is None:
            self._writer, self._start = FrameWriter(path, picture.rate), time.monotonic()
        repeats = 1
        if picture.source.kind == "webcam":  # a frame stays until the next one, at a fixed rate
            due = round((time.monotonic() - self._start) * picture.rate)
            repeats = max(1, due - self._writer.number)
        for _ in range(repeats):
            self._writer.write(annotated)

    def close(self) -> None:
        """Complete the current video, if there is one."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None


def _write_image(path: Path, pixels: np.ndarray) -> None:
    _, data = cv2.imencode(path.suffix.lower(), pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    with as_save_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())


def results_of(found: Instances, image_id: int, categories: Categories) -> list[dict]:
    """COCO results of one image: image_id, category_id, bbox (x, y, w, h), score, segmentation.

    Args:
        found: on the CPU, with boxes and masks in pixels of the original image.
    """
    results = instances_to_coco_json(found, image_id)
    for result in results:
        result["category_id"] = categories.ids[result["category_id"]]
    return results


def images_json(images: list[dict], categories: Categories) -> dict:
    """A COCO file without annotations, which pycocotools needs to read the results."""
    named = zip(categories.ids, categories.names, strict=True)
    return {
        "info": {"description": "images and categories of the results beside this file"},
        "images": images,
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in named],
    }


class CocoResults:
    """Collects the results of all images, then writes them.

    `unknown` counts the images that are not in `annotations`.

    Args:
        categories: the classes of the detector.
        annotations: a COCO file that gives the image ids by file name. Images that it does not
            contain get the numbers after its largest id; without such a file, numbers from 1.
    """

    def __init__(self, categories: Categories, annotations: str | None = None):
        self.categories = categories
        self.images: list[dict] = []
        self.results: list[dict] = []
        self.unknown = 0
        content = read_annotations(annotations) if annotations else {"images": []}
        self._ids = {image.get("file_name"): image.get("id") for image in content["images"]}
        self._last = max((i for i in self._ids.values() if isinstance(i, int)), default=0)

    def add(self, entry: dict, found: Instances) -> None:
        """Keep the detections in one image.

        Args:
            entry: of the image in images.json, without its id: file_name, width, height, ...
        """
        image_id = self._ids.get(entry["file_name"]) if "frame" not in entry else None
        if image_id is None:
            self._last += 1
            self.unknown += 1
            image_id = self._last
        self.images.append({"id": image_id, **entry})
        self.results += results_of(found, image_id, self.categories)

    def write(self, folder: Path) -> None:
        write_text(folder / IMAGES, json.dumps(images_json(self.images, self.categories)))
        write_text(folder / RESULTS, json.dumps(self.results))
