"""Shards load as the folder does, with any number of ranks and workers."""

import hashlib
import pickle
from collections import Counter
from itertools import islice
from pathlib import Path

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
from d2_isonet.data.shards import loader as shard_loader
from d2_isonet.data.shards.index import ShardedImages, load_shard_index
from d2_isonet.distributed.launch import launch
from d2_isonet.evaluation.classification import ImageNetEvaluator

RANKS_AND_WORKERS = [(ranks, workers) for ranks in (1, 2, 3) for workers in (0, 1, 2)]
PLAIN = ImageNetMapper(False, crop_size=16, resize=16)
RANDOM = ImageNetMapper(True, crop_size=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_images(root, {"a": 7, "b": 5, "c": 11})
    return root


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory) -> Path:
    return write_shards(folder, tmp_path_factory.mktemp("shards"), "--shard-samples", "5")


@pytest.fixture
def of_rank(monkeypatch):
    """Makes this process rank r of n."""

    def pretend(rank: int, world_size: int) -> None:
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world_size)

    return pretend


@pytest.fixture
def read(monkeypatch) -> list:
    """The shards that this process reads, in order."""
    shards, read_shard = [], shard_loader.read_shard

    def recorded(shard, *args):
        shards.append(shard)
        return read_shard(shard, *args)

    monkeypatch.setattr(shard_loader, "read_shard", recorded)
    return shards


def content(samples) -> Counter:
    """The multiset of (label, pixels)."""
    return Counter(
        (x["label"], hashlib.sha256(x["image"].numpy().tobytes()).hexdigest()) for x in samples
    )


def by_position(images, of_rank, ranks, workers, epochs=1, mapper=PLAIN, **options) -> list[dict]:
    """The samples of all ranks at the positions of whole epochs, in order."""
    batch_size = 2 * ranks
    iterations = -(-epochs * len(images) // batch_size)
    samples = {}
    for rank in range(ranks):
        of_rank(rank, ranks)
        loader = build_image_train_loader(
            images, mapper, LoaderOptions(batch_size, workers, 4, **options)
        )
        for iteration, batch in enumerate(islice(loader, iterations)):
            assert len(batch) == 2
            for slot, sample in enumerate(batch):
                samples[iteration * batch_size + slot * ranks + rank] = sample
    return [samples[p] for p in range(epochs * len(images))]


@pytest.mark.parametrize(("ranks", "workers"), RANKS_AND_WORKERS)
def test_every_epoch_has_the_content_of_the_folder(ranks, workers, folder, shards, of_rank):
    dicts = load_registered(register_data_root(str(folder))[0])[0]
    images = load_shard_index(str(shards))["train"]
    assert len(images.shards) == 5 and len(images) == len(dicts) == 23
    samples = by_position(images, of_rank, ranks, workers, epochs=3)
    expected = content(map(PLAIN, dicts))
    for epoch in range(3):
        assert content(samples[23 * epoch : 23 * (epoch + 1)]) == expected


def check_real_samples(ranks, workers, samples, tmp_path, of_rank):
    dicts = load_registered(register_data_root(str(samples / "imagenet"))[0])[0]
    root = write_shards(samples / "imagenet", tmp_path / "shards", "--shard-megabytes", "2.5")
    images = load_shard_index(str(root))["train"]
    mapper = ImageNetMapper(False)
    taken = by_position(images, of_rank, ranks, workers, mapper=mapper)
    assert len(images.shards) == 11 and len(dicts) == 240
    assert content(taken) == content(map(mapper, dicts))


def test_an_epoch_of_real_photographs_is_that_of_the_folder(samples, tmp_path, of_rank):
    check_real_samples(3, 2, samples, tmp_path, of_rank)


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "workers"), RANKS_AND_WORKERS)
def test_epochs_of_real_photographs_are_those_of_the_folder(
    ranks, workers, samples, tmp_path, of_rank
):
    check_real_samples(ranks, workers, samples, tmp_path, of_rank)


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_give_the_dicts_of_the_folder(workers, folder, shards):
    dicts = load_registered(register_data_root(str(folder))[0])[0]
    loader = build_image_train_loader(
        load_shard_index(str(shards))["train"], PLAIN, LoaderOptions(23, workers)
    )
    for sample in next(iter(loader)):
        expected = dicts[sample["image_id"]]
        name = sample["file_name"].partition(".tar/")[2]
        assert sample["label"] == expected["label"] and expected["file_name"].endswith(f"/{name}")
        assert torch.equal(sample["image"], PLAIN(expected)["image"]) and "data" not in sample


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("start", [0, 1, 7, 40])
def test_a_resumed_reader_gives_the_batches_of_an_uninterrupted_one(workers, start, shards):
    images = load_shard_index(str(shards))["train"]

    def batches(first: int, last: int) -> list[torch.Tensor]:
        loader = build_image_train_loader(images, RANDOM, LoaderOptions(3, workers, seed=9))
        loader.start_at(first, seed=2)
        return [torch.stack([x["image"] for x in batch]) for batch in islice(loader, last - first)]

    whole = batches(0, start + 6)
    assert all(map(torch.equal, batches(start, start + 6), whole[start:]))
    assert len({batch.numpy().tobytes() for batch in whole}) == len(whole)


def test_a_resumed_reader_decodes_nothing_before_its_start(shards, read):
    mapped = []
    images = load_shard_index(str(shards))["train"]
    loader = build_image_train_loader(
        images, lambda x: mapped.append(x) or PLAIN(x), LoaderOptions(2, seed=0)
    )
    loader.start_at(100, seed=0)
    next(iter(loader))
    assert len(mapped) == 2 and len(read) <= 2


def test_nothing_is_read_before_the_first_batch_is_asked_for(shards, monkeypatch):
    monkeypatch.setattr(shard_loader, "read_shard", lambda *args: 1 / 0)
    loader = build_image_train_loader(
        load_shard_index(str(shards))["train"], PLAIN, LoaderOptions(2, seed=0)
    )
    batches = iter(loader)
    with pytest.raises(ZeroDivisionError):
        next(batches)


@pytest.mark.parametrize("ranks", [2, 3])
def test_with_equal_streams_one_rank_sees_the_batches_of_many(ranks, shards, of_rank):
    images = load_shard_index(str(shards))["train"]
    many = by_position(images, of_rank, ranks, 0, 2, mapper=RANDOM, shard_streams=6)
    of_rank(0, 1)
    loader = build_image_train_loader(
        images, RANDOM, LoaderOptions(2 * ranks, seed=4, shard_streams=6)
    )
    one = [x for batch in islice(loader, 30) for x in batch]
    for a, b in zip(many, one, strict=False):
        assert a["image_id"] == b["image_id"] and torch.equal(a["image"], b["image"])


def test_a_shard_is_read_once_an_epoch_but_where_two_share_it(shards, of_rank, read):
    images = load_shard_index(str(shards))["train"]
    by_position(images, of_rank, 2, 0)
    assert 5 <= len(read) <= 5 + 2 and set(read) == set(images.shards)


def test_more_ranks_and_workers_than_shards_or_images_work(shards, of_rank):
    images = load_shard_index(str(shards))["train"]
    images = ShardedImages("one", images.classes, images.shards[:1])
    samples = by_position(images, of_rank, 4, 3, epochs=4)
    ids = [x["image_id"] for x in samples]
    assert len(images) == 4 and {len(set(ids[i : i + 4])) for i in (0, 4, 8, 12)} == {4}


def test_augmentation_leaves_the_training_s_random_numbers_alone(shards):
    loader = build_image_train_loader(
        load_shard_index(str(shards))["train"], RANDOM, LoaderOptions(2, seed=0)
    )
    before = torch.get_rng_state()
    list(islice(loader, 3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2, 20])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_evaluation_has_the_batches_of_the_folder(ranks, workers, folder, shards, of_rank):
    dicts = load_registered(register_data_root(str(folder))[1])[0]
    images = load_shard_index(str(shards))["val"]
    for rank in range(ranks):
        of_rank(rank, ranks)
        loaders = [build_image_test_loader(x, PLAIN, 4, workers) for x in (dicts, images)]
        expected, batches = ({b[0]["image_id"]: content(b) for b in x} for x in loaders)
        assert batches == expected and len(loaders[0]) == len(loaders[1]) == len(batches)


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.randn(3, 3 * 16 * 16, generator=torch.Generator().manual_seed(0))

    def forward(self, batch):
        images = torch.stack([x["image"] for x in batch]).flatten(1) - 127.0
        return [{"logits": logits} for logits in images @ self.weight.T]


def evaluate(root: str, path: str):
    images = load_registered(register_data_root(root)[1])[0]
    loader = build_image_test_loader(images, PLAIN, 4, num_workers=1)
    results = inference_on_dataset(Linear(), loader, ImageNetEvaluator(3))
    if results:
        torch.save(dict(results), path)


@pytest.mark.usefixtures("fork_server")
@pytest.mark.parametrize("ranks", [1, 2])
def test_accuracy_on_shards_equals_that_on_the_folder(ranks, folder, shards, tmp_path):
    for name, root in (("folder", folder), ("shards", shards)):
        launch(evaluate, ranks, args=(str(root), str(tmp_path / name)))
    results = [torch.load(tmp_path / name)["classification"] for name in ("folder", "shards")]
    assert results[0] == results[1] and results[0]["num_images"] == 23
    assert 0 < results[0]["top1"] < 100


def test_what_loading_processes_get_can_be_sent_to_them(shards):
    # forks have it anyway; spawned ones do not
    images = load_shard_index(str(shards))
    loader = build_image_test_loader(images["val"], PLAIN, 4)
    batches = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))[0]
    assert [content(batch) for batch in batches] == [content(batch) for batch in loader]
    loader = build_image_train_loader(images["train"], RANDOM, LoaderOptions(4, seed=0))
    batches = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))[0]
    for ours, theirs in islice(zip(batches, loader, strict=False), 3):
        assert content(ours) == content(theirs)


@pytest.mark.parametrize(
    ("batch_size", "streams", "message"),
    [
        (3, 0, "3 images cannot be shared by 2"),
        (0, 0, "batch of 0"),
        (2, -1, "SHARD_STREAMS is -1"),
    ],
)
def test_a_loader_that_cannot_be_is_refused(batch_size, streams, message, shards, of_rank):
    of_rank(0, 2)
    images = load_shard_index(str(shards))["train"]
    with pytest.raises(ValueError, match=message):
        build_image_train_loader(
            images, PLAIN, LoaderOptions(batch_size, seed=0, shard_streams=streams)
        )
