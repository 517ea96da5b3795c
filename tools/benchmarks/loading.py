"""Training images from full-size JPEGs on one core: our loader against torchvision's usual one."""

import argparse
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from d2_isonet.data import crops as jpeg_crops
from d2_isonet.data.image_folder import load_image_folder
from d2_isonet.data.imagenet import ImageNetMapper, build_image_train_loader
from d2_isonet.data.loader import LoaderOptions
from d2_isonet.data.shards.index import Shard, ShardedImages
from d2_isonet.data.shards.plan import PlannedShard, described
from d2_isonet.data.shards.writing import write_shard

from .measure import Comparison, compare_speeds, seconds_in_turn

_LIMIT = 1.7
_BATCH = 48
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# (width, height) -> number in 24, as in 240 images of ImageNet (mean 194,000 pixels)
_SIZES = {(500, 375): 9, (500, 333): 4, (375, 500): 3, (333, 500): 2, (400, 300): 3,
          (500, 500): 1, (600, 450): 1, (800, 600): 1}  # fmt: skip


def compare(options: argparse.Namespace) -> Iterator[Comparison]:
    """Training images from full-size JPEGs on one core: our loader against torchvision's usual one.

    The peer is ImageFolder with RandomResizedCrop(224), RandomHorizontalFlip, ToTensor and
    Normalize in a DataLoader; ours is build_image_train_loader with ImageNetMapper. Both read files
    into batches of 48 without workers. Rows for fast crops, for torchvision's pixels to the last
    bit, and for the same images in tar shards (ours) against their folder (peer), both through our
    loader. Images are from $DETECTRON2_DATASETS/imagenet, if it exists, and made up: noise with the
    spectrum of photographs, in ImageNet's usual sizes, chroma formats and bytes per pixel.

    Raises:
        RuntimeError: the two do not load the same crops.
    """
    logging.getLogger("detectron2.data.build").setLevel(logging.WARNING)
    real = Path(os.getenv("DETECTRON2_DATASETS", "datasets"), "imagenet")
    with TemporaryDirectory() as folder:
        write_photographs(Path(folder), 2 if options.quick else 2 * _BATCH)
        roots = {"made-up photographs": Path(folder)}
        if (real / "train").is_dir() and not options.quick:
            roots = {"ImageNet": real, **roots}
        for name, root in roots.items():
            yield from _compare(name, root / "train", options)


def _compare(name: str, folder: Path, options: argparse.Namespace) -> Iterator[Comparison]:
    """Rows for one folder: at most 240 images, evenly spread, in whole batches, and in shards."""
    dicts = load_image_folder(str(folder.parent), "train")[0]
    chosen = range(0, len(dicts), max(len(dicts) // 240, 1))[:240]
    batch = min(_BATCH, len(chosen))
    chosen = chosen[: len(chosen) // batch * batch]
    dicts = [dicts[i] for i in chosen]
    peer = Subset(ImageFolder(str(folder), peer_transform()), chosen)
    size = sum(os.path.getsize(d["file_name"]) for d in dicts) / len(dicts)
    decoder = "Pillow" if jpeg_crops.simplejpeg is None else "simplejpeg"
    name = f"{name}, {len(dicts)} files"
    epoch = (LoaderOptions(batch, seed=0), len(dicts) // batch)
    for suffix, exact, limit in (("", False, _LIMIT), (", exact pixels", True, None)):
        mapper = ImageNetMapper(True, exact_crops=exact)
        difference = mean_difference(dicts[:16], mapper, peer)
        note = f"{size / 1e3:.0f} kB a file, {decoder}; pixels differ by {difference:.3f} of 255"
        loader = DataLoader(peer, batch, shuffle=True)
        sides = (load_batches(dicts, mapper, *epoch), partial(deque, loader, maxlen=0))
        seconds = seconds_in_turn(sides, options)
        yield compare_speeds(name + suffix, len(dicts), seconds, limit=limit, note=note)
    with TemporaryDirectory() as output:
        images, mapper = (shards_of(dicts, Path(output)), dicts), ImageNetMapper(True)
        seconds = seconds_in_turn([load_batches(x, mapper, *epoch) for x in images], options)
    note = "against our loader of the folder; sha256 of every shard included"
    yield compare_speeds(f"{name}, in shards", len(dicts), seconds, note=note)


def shards_of(dicts: list[dict], output: Path) -> ShardedImages:
    """Write the images into shards of at most 100 images (11 MB) in `output`."""
    images = [described(d, os.path.dirname(d["file_name"])) for d in dicts]
    shards = [
        write_shard(output, PlannedShard(f"train-{i:05d}.tar", "train", 0, images[i : i + 100]))
        for i in range(0, len(images), 100)
    ]
    classes = tuple(map(str, range(1 + max(d["label"] for d in dicts))))
    shards = (Shard(str(output / s["file"]), s["samples"], s["bytes"], s["sha256"]) for s in shards)
    return ShardedImages("shards", classes, tuple(shards))


def load_batches(
    dicts: list[dict] | ShardedImages, mapper: ImageNetMapper, options: LoaderOptions, count: int
) -> Callable[[], object]:
    """Loading `count` batches with our loader, whose processes are already started."""
    batches = iter(build_image_train_loader(dicts, mapper, options))
    return lambda: deque(islice(batches, count), maxlen=0)


def peer_transform() -> transforms.Compose:
    """The transform of torchvision's references and of the authors: float32 (3, 224, 224)."""
    crop, flip = transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()
    return transforms.Compose(
        [crop, flip, transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)]
    )


def mean_difference(dicts: list[dict], mapper: ImageNetMapper, peer: Subset) -> float:
    """Mean absolute difference of the pixels of both for the same seeds, on the scale of 255.

    Raises:
        RuntimeError: an image differs by more than 5, so the crops are not the same.
    """
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (_MEAN, _STD))
    differences = []
    for seed, image_dict in enumerate(dicts):
        torch.manual_seed(seed)
        ours = mapper(image_dict)["image"]
        torch.manual_seed(seed)
        theirs = 255 * (peer[seed][0] * std + mean)
        differences.append((ours - theirs).abs().mean().item())
        if differences[-1] > 5:
            raise RuntimeError(f"{image_dict['file_name']} is not cropped as torchvision crops it")
    return sum(differences) / len(differences)


def write_photographs(root: Path, count: int) -> None:
    """Write `count` JPEGs of about 110 kB to ROOT/train/photograph, 1 of 4 with subsampling."""
    folder = root / "train" / "photograph"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    sizes = [size for size, times in _SIZES.items() for _ in range(times)]
    for index in range(count):
        image = Image.fromarray(_photograph(random, *sizes[index % len(sizes)]), "YCbCr")
        subsampling = "4:2:0" if index % 4 == 3 else "4:4:4"
        image.save(folder / f"{index}.jpg", quality=90, subsampling=subsampling)


def _photograph(random: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Noise with an amplitude of 1 / frequency, as in photographs: YCbCr uint8 (H, W, 3)."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((3, height, width))) / frequency
    noise = np.fft.irfft2(spectrum, s=(height, width))
    noise *= np.array([40, 6, 6])[:, None, None] / noise.std(axis=(1, 2), keepdims=True)
    return np.clip(noise + 128, 0, 255).astype(np.uint8).transpose(1, 2, 0)
