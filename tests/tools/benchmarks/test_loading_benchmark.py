"""The benchmark of the loader: both sides load the same crops, and its photographs are usual."""

import argparse
from pathlib import Path

import pytest
import torch
from benchmarks import loading
from PIL import Image
from torchvision.datasets import ImageFolder

from d2_isonet.data.image_folder import load_image_folder
from d2_isonet.data.imagenet import ImageNetMapper, build_image_test_loader


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    loading.write_photographs(root, 24)
    return root


def test_benchmark_prints_a_row_for_fast_and_exact_crops_and_for_shards(monkeypatch):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    options = argparse.Namespace(device="cpu", depth=[18], repetitions=1, threads=1, quick=True)
    fast, exact, shards = loading.compare(options)
    assert fast.unit == "images/s" and fast.more_is_better and fast.limit == 1.7
    assert exact.limit is None and "differ by 0.000" in exact.note
    assert shards.name.endswith("in shards") and shards.ours[0] > 0


def test_the_shards_hold_the_folder_s_images(photographs, tmp_path):
    dicts = load_image_folder(str(photographs), "train")[0]
    shards = loading.shards_of(dicts[:5], tmp_path)
    batches = build_image_test_loader(shards, ImageNetMapper(False), 5)
    for expected, sample in zip(dicts, next(iter(batches)), strict=False):
        assert torch.equal(sample["image"], ImageNetMapper(False)(expected)["image"])


def test_both_sides_load_the_same_crops(photographs):
    dicts = load_image_folder(str(photographs), "train")[0][:8]
    peer = ImageFolder(str(photographs / "train"), loading.peer_transform())
    exact = loading.mean_difference(dicts, ImageNetMapper(True, exact_crops=True), peer)
    assert exact < 1e-4 < loading.mean_difference(dicts, ImageNetMapper(True), peer) < 0.1
    with pytest.raises(RuntimeError, match="not cropped as torchvision"):
        loading.mean_difference(dicts[::-1], ImageNetMapper(True), peer)


def test_photographs_have_sizes_and_bytes_of_imagenet(photographs):
    files = sorted((photographs / "train" / "photograph").iterdir())
    pixels = sum(image.width * image.height for image in map(Image.open, files)) / len(files)
    size = sum(file.stat().st_size for file in files) / len(files)
    assert 180_000 < pixels < 220_000 and 90_000 < size < 140_000
