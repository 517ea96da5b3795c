"""Assigns images to shards before anything is written; only the seed decides."""

import hashlib
import itertools
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from d2_isonet.data.image_file import errors_naming, unreadable
from d2_isonet.data.image_folder import load_image_folder
from d2_isonet.utils.files import why_not_regular
from d2_isonet.utils.messages import UserError

SPLITS = ("train", "val")
_BLOCK, _RECORD = 512, 10240  # bytes; a tar file is made of these


class PlannedShard(NamedTuple):
    """A tar file to write: its name, split, size in bytes and images, as the folder's dicts."""

    file: str
    split: str
    bytes: int
    images: list[dict]


class Plan(NamedTuple):
    """All shards of a data set, and a sha256 of their files, sizes and classes."""

    classes: list[str]
    shards: list[PlannedShard]
    seed: int
    sha256: str


def make_plan(folder: Path, megabytes: float, samples: int | None, seed: int) -> Plan:
    """Both splits of FOLDER/{train,val}/<class>/*: train/ shuffled, val/ in the folder's order.

    Args:
        megabytes: approximate size of a shard in 10^6 bytes; shards of a split have equal numbers
            of images, to within one.
        samples: largest number of images in a shard, instead of `megabytes`.

    Raises:
        FileNotFoundError, UserError: what `load_image_folder` raises, or an image file is empty.
    """
    shards = []
    for split in SPLITS:
        dicts, classes = load_image_folder(str(folder), split)
        root = os.path.abspath(folder / split)
        images = [described(d, root) for d in dicts]
        if split == "train":
            order = np.random.default_rng(seed).permutation(len(images))
            images = [images[i] for i in order]
        shards += _cut(images, split, megabytes, samples)
    facts = [classes, [[s.file, [[d["file"], d["size"]] for d in s.images]] for s in shards]]
    return Plan(classes, shards, seed, hashlib.sha256(json.dumps(facts).encode()).hexdigest())


def described(image: dict, folder: str) -> dict:
    """The dict with its "file" relative to the split's folder and its "size" in bytes."""
    path = image["file_name"]
    with errors_naming(path):
        if reason := why_not_regular(path):
            raise unreadable(path, reason)
        size = os.path.getsize(path)
    if size == 0:
        raise UserError(f"Image {path} is empty", "replace or remove the file")
    return {**image, "file": os.path.relpath(path, folder), "size": size}


def _cut(
    images: list[dict], split: str, megabytes: float, samples: int | None
) -> list[PlannedShard]:
    sizes = [_tar_bytes(image) for image in images]
    wanted = len(images) / samples if samples else sum(sizes) / (megabytes * 1e6)
    count = min(max(math.ceil(wanted), 1), len(images))
    digits = max(5, len(str(count - 1)))
    bounds = [len(images) * i // count for i in range(count + 1)]
    shards = []
    for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
        size = _padded(sum(sizes[begin:end]) + 2 * _BLOCK, _RECORD)
        file = f"{split}-{number:0{digits}d}.tar"
        shards.append(PlannedShard(file, split, size, images[begin:end]))
    return shards


def record_of(image: dict) -> bytes:
    """The json beside an image in its shard: file, image_id and label."""
    return json.dumps({key: image[key] for key in ("file", "image_id", "label")}).encode()


def _tar_bytes(image: dict) -> int:
    """Bytes of an image and its json in a tar file."""
    return sum(_BLOCK + _padded(size, _BLOCK) for size in (image["size"], len(record_of(image))))


def _padded(size: int, unit: int) -> int:
    return math.ceil(size / unit) * unit
