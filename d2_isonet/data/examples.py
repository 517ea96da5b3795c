"""Finds example images for a network: from a folder, from the test set, or made of noise."""

import os
from collections.abc import Callable
from typing import NamedTuple

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, detection_utils
from PIL import Image

from d2_isonet.utils.messages import MissingFileError, UserError

from .image_folder import list_images
from .imagenet import classification_mapper
from .shards.index import ShardedImages

_NOISE_SIZES = ((480, 640), (640, 480), (500, 500), (375, 500))  # height, width


class Examples(NamedTuple):
    """Images (3, H, W), float32 of range 0-255 in INPUT.FORMAT, resized as for an evaluation."""

    images: list[torch.Tensor]
    source: str


def find_examples(cfg: CfgNode, folder: str | None, number: int) -> Examples:
    """Up to `number` images spread over `folder`, else over the test set, else made of noise.

    Raises:
        UserError: the folder has no image, or an image cannot be read.
        FileNotFoundError: the folder does not exist.
    """
    read = _reader(cfg)
    if folder is not None:
        return _from_files(image_files(folder, number), read, f"of {folder}")
    files, why_not = _test_set_files(cfg)
    if files:
        source = f"of the test set {cfg.DATASETS.TEST[0]}"
        return _from_files(_spread(files, number), read, source)
    generator = np.random.default_rng(0)
    sizes = [_NOISE_SIZES[i % len(_NOISE_SIZES)] for i in range(number)]
    noise = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    source = f"of NOISE ({why_not}: --images FOLDER gives real ones)"
    return Examples([read(pixels) for pixels in noise], source)


def image_files(folder: str, number: int) -> list[str]:
    """Up to `number` image files spread over `folder`.

    Raises:
        UserError: the folder has no image.
        FileNotFoundError: the folder does not exist.
    """
    if not os.path.isdir(folder):
        raise MissingFileError(f"--images: there is no folder {os.path.abspath(folder)}")
    files, others = list_images(folder)
    if not files:
        raise UserError(
            f"--images: {os.path.abspath(folder)} has no image ({len(others)} other files)"
        )
    return _spread(files, number)


def _spread(files: list[str], number: int) -> list[str]:
    return files[:: max(len(files) // number, 1)][:number]


def _from_files(files: list[str], read: Callable, source: str) -> Examples:
    images = []
    for file in files:
        try:
            images.append(read(file))
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read as an image: {error}") from error
    return Examples(images, source)


def _test_set_files(cfg: CfgNode) -> tuple[list[str], str]:
    """The image files of the first set of DATASETS.TEST, and the reason if there are none."""
    if not cfg.DATASETS.TEST:
        return [], "DATASETS.TEST is empty"
    name = cfg.DATASETS.TEST[0]
    if name not in DatasetCatalog.list():
        return [], f"the test set {name} is not registered"
    try:
        dicts = DatasetCatalog.get(name)
    except (UserError, FileNotFoundError, NotADirectoryError):  # no json, no folder
        dicts = []
    dicts = [] if isinstance(dicts, ShardedImages) else dicts
    files = [x["file_name"] for x in dicts if os.path.isfile(x["file_name"])]
    return files, f"no image file of the test set {name} is here"


def _reader(cfg: CfgNode) -> Callable[[str | np.ndarray], torch.Tensor]:
    """Reads a file, or takes RGB pixels (H, W, 3), and resizes them as for an evaluation."""
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        mapper = classification_mapper(cfg, is_train=False)

        def read(image: str | np.ndarray) -> torch.Tensor:
            if isinstance(image, str):
                return mapper({"file_name": image})["image"].float()
            return mapper.transform(Image.fromarray(image)).float()

        return read
    sizes = [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST]
    resize = T.ResizeShortestEdge(sizes, cfg.INPUT.MAX_SIZE_TEST)

    def read_for_detection(image: str | np.ndarray) -> torch.Tensor:
        if isinstance(image, str):
            image = detection_utils.read_image(image, cfg.INPUT.FORMAT)
        pixels = resize.get_transform(image).apply_image(image)
        return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))

    return read_for_detection
