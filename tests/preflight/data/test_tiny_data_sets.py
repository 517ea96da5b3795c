"""Fewer images than a batch, a worker or a process: from folders and from shards alike."""

from collections import Counter
from itertools import islice

import pytest
import torch
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from shard_sets import write_images, write_shards
from torch import nn

from d2_isonet.data.datasets import load_registered, register_data_root
from d2_isonet.data.imagenet import (
    ImageNetMapper,
    build_image_test_loader,
    build_image_train_loader,
)
from d2_isonet.data.loader import LoaderOptions
from d2_isonet.distributed.launch import launch
from d2_isonet.evaluation.classification import ImageNetEvaluator

MAPPER = ImageNetMapper(False, crop_size=8, resize=8)


@pytest.fixture(params=["folder", "shards"])
def data_root(request, tmp_path):
    """Makes a data root with so many images of one class in each split."""

    def make(number: int) -> str:
        write_images(tmp_path / "folder", {"a": number})
        if request.param == "shards":
            write_shards(tmp_path / "folder", tmp_path / "shards", "--shard-samples", "2")
        return str(tmp_path / request.param)

    return make


@pytest.fixture
def of_rank(monkeypatch):
    """Makes this process rank r of n."""

    def pretend(rank: int, world_size: int) -> None:
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world_size)
        monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: world_size)

    return pretend


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("number", [1, 3])
def test_a_batch_larger_than_the_set_shows_every_image_equally_often(number, workers, data_root):
    images = load_registered(register_data_root(data_root(number))[0])[0]
    loader = build_image_train_loader(images, MAPPER, LoaderOptions(8, workers, seed=0))
    batches = list(islice(loader, 3))
    assert [len(batch) for batch in batches] == [8, 8, 8]
    seen = Counter(x["image_id"] for batch in batches for x in batch)
    assert seen == {image: 24 // number for image in range(number)}


def test_more_processes_than_images_train_on_equal_batches(data_root, of_rank):
    images = load_registered(register_data_root(data_root(2))[0])[0]
    seen = Counter()
    for rank in range(4):
        of_rank(rank, 4)
        loader = build_image_train_loader(images, MAPPER, LoaderOptions(4, 1, seed=0))
        batches = list(islice(loader, 3))
        assert [len(batch) for batch in batches] == [1, 1, 1]
        seen.update(x["image_id"] for batch in batches for x in batch)
    assert seen == {0: 6, 1: 6}


@pytest.mark.parametrize("workers", [0, 5])
def test_more_processes_and_workers_than_images_evaluate_each_once(workers, data_root, of_rank):
    images = load_registered(register_data_root(data_root(2))[1])[0]
    evaluated = []
    for rank in range(3):
        of_rank(rank, 3)
        loader = build_image_test_loader(images, MAPPER, 64, workers)
        batches = [[x["image_id"] for x in batch] for batch in loader]
        assert len(loader) == len(batches)
        evaluated += batches
    assert evaluated == [[0], [1]]


class Sure(nn.Module):
    def forward(self, batch):
        return [{"logits": torch.tensor([1.0])} for _ in batch]


def evaluate(root: str, path: str) -> None:
    images = load_registered(register_data_root(root)[1])[0]
    results = inference_on_dataset(
        Sure(), build_image_test_loader(images, MAPPER, 4), ImageNetEvaluator(1)
    )
    if results:
        torch.save(dict(results), path)


@pytest.mark.usefixtures("fork_server")
def test_two_processes_evaluate_one_image(data_root, tmp_path):
    launch(evaluate, 2, args=(data_root(1), str(tmp_path / "results")))
    results = torch.load(tmp_path / "results")["classification"]
    assert (results["top1"], results["num_images"]) == (100, 1)
