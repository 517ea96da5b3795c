"""Finds example images for a network: from a folder, from the test set, or made of noise."""

import contextlib
import itertools
import os
from collections.abc import Callable
from typing import NamedTuple

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from PIL import Image

from d2_isonet.utils.messages import MissingFileError, UserError

from .image_file import read_upright
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
        return Examples(_read(image_files(folder, number), read), f"of {folder}")
    files, why_not = _test_set_files(cfg)
    if files:
        source = f"of the test set {cfg.DATASETS.TEST[0]}"
        return Examples(_read(_spread(files, number), read), source)
    generator = np.random.default_rng(0)
    sizes = itertools.islice(itertools.cycle(_NOISE_SIZES), number)
    noise = [read(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    return Examples(noise, f"of NOISE ({why_not}: --images FOLDER gives real ones)")


def image_files(folder: str, number: int) -> list[str]:
    """Up to `number` image files spread over `folder`.

    Raises:
        UserError: the folder has no image.
        FileNotFoundError: the folder does not exist.
    """
    path = os.path.abspath(folder)
    if not os.path.isdir(folder):
        raise MissingFileError(f"--images: there is no folder {path}")
    files, others = list_images(folder)
    if not files:
        raise UserError(f"--images: {path} has no image ({len(others)} other files)")
    return _spread(files, number)


def _spread(files: list[str], number: int) -> list[str]:
    return files[:: max(len(files) // number, 1)][:number]


def _read(files: list[str], read: Callable) -> list[torch.Tensor]:
    images = []
    for file in files:
        try:
            images.append(read(file))
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read as an image: {error}") from error
    return images


def _test_set_files(cfg: CfgNode) -> tuple[list[str], str]:
    """The image files of the first set of DATASETS.TEST, and the reason if there are none."""
    if not cfg.DATASETS.TEST:
        return [], "DATASETS.TEST is empty"
    name = cfg.DATASETS.TEST[0]
    if name not in DatasetCatalog.list():
        return [], f"the test set {name} is not registered"
    dicts: list[dict] | ShardedImages = []
    with contextlib.suppress(UserError, FileNotFoundError, NotADirectoryError):  # no json or folder
        dicts = DatasetCatalog.get(name)
    files = [] if isinstance(dicts, ShardedImages) else [x["file_name"] for x in dicts]
    return list(filter(os.path.isfile, files)), f"no image file of the test set {name} is here"


def _reader(cfg: CfgNode) -> Callable[[str | np.ndarray], torch.Tensor]:
    """Reads a file, or takes RGB pixels (H, W, 3), and resizes them as for an evaluation."""
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        mapper = classification_mapper(cfg, is_train=False)

        def read(image: str | np.ndarray) -> torch.Tensor:
            if isinstance(image, str):
                return mapper({"file_name": image})["image"].float()
            return mapper.transform(Image.fromarray(image)).float()

        return read
    resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)

    def read_for_detection(image: str | np.ndarray) -> torch.Tensor:
        if isinstance(image, str):
            image = read_upright(image, cfg.INPUT.FORMAT, cfg.INPUT.MAX_IMAGE_PIXELS)
        pixels = resize.get_transform(image).apply_image(image)
        return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))

    return read_for_detection
