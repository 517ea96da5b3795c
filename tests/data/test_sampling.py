"""The order of the training images: detectron2's passes and groups, starting at any iteration."""

from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.utils import comm

from d2_isonet.data.sampling import (
    BatchOrder,
    aspect_ratio_groups,
    configured_pass,
    repeated_pass,
    shuffled_pass,
    subset_pass,
)


def dicts(number: int) -> list[dict]:
    """Two of three are landscape; image 0 alone has category 1."""
    return [
        {"width": 60 + 20 * (i % 3), "height": 70, "annotations": [{"category_id": int(i == 0)}]}
        for i in range(number)
    ]


def order(size: int = 10, batch_size: int = 3, seed: int = 0, groups=None, start: int = 0):
    batches = BatchOrder(shuffled_pass(size), batch_size, seed, groups)
    batches.start = start
    return batches


@pytest.fixture
def processes(monkeypatch):
    """Makes this process one of several: processes(rank, world_size)."""

    def be(rank: int, world_size: int) -> None:
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world_size)

    return be


def test_every_pass_shows_every_image_once_and_no_two_passes_alike():
    indices = [draw.index for draw in chain.from_iterable(islice(order(), 20))]
    passes = [indices[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(p) == list(range(10)) for p in passes)
    assert len({tuple(p) for p in passes}) == 6


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("start", [1, 3, 4, 17, 100])
def test_an_order_that_starts_later_is_the_rest_of_the_whole(start, grouped, processes):
    groups = aspect_ratio_groups(dicts(10)) if grouped else None
    for rank in range(3):
        processes(rank, 3)
        whole = list(islice(order(groups=groups), start + 8))
        assert list(islice(order(groups=groups, start=start), 8)) == whole[start:]


def test_batches_of_one_group_are_those_of_detectron2():
    images = dicts(11)
    stream = chain.from_iterable(islice(order(size=11, batch_size=1), 200))
    numbered = [{**images[draw.index], "index": draw.index} for draw in stream]
    expected = [[x["index"] for x in b] for b in AspectRatioGroupedDataset(numbered, 4)]
    ours = order(size=11, batch_size=4, groups=aspect_ratio_groups(images))
    assert [[draw.index for draw in b] for b in islice(ours, len(expected))] == expected


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_batches_of_all_processes_together_do_not_depend_on_their_number(world_size, processes):
    whole = [set(batch) for batch in islice(order(batch_size=4), 15)]
    parts = []
    for rank in range(world_size):
        processes(rank, world_size)
        parts.append(list(islice(order(batch_size=4 // world_size), 15)))
    assert [set(chain.from_iterable(p)) for p in zip(*parts, strict=True)] == whole


def test_an_image_is_augmented_otherwise_in_another_pass_and_another_run():
    seeds = [draw.seed for draw in chain.from_iterable(islice(order(), 20))]
    others = [draw.seed for draw in chain.from_iterable(islice(order(seed=1), 20))]
    assert len({*seeds, *others}) == 120


def test_images_come_as_often_as_their_factors_say():
    one_pass = repeated_pass(torch.tensor([1.0, 2.0, 2.5]))
    counts = Counter(chain.from_iterable(one_pass(0, epoch).tolist() for epoch in range(1000)))
    assert counts[0] == 1000 and counts[1] == 2000
    assert counts[2] == pytest.approx(2500, abs=60)  # within four standard deviations
    assert torch.equal(one_pass(0, 7), one_pass(0, 7))


def test_a_pass_over_a_subset_has_the_same_images_every_time():
    passes = [subset_pass(20, 0.25)(3, epoch) for epoch in range(4)]
    assert len(passes[0]) == 5 and len({frozenset(p.tolist()) for p in passes}) == 1
    assert len({tuple(p.tolist()) for p in passes}) > 1


def test_the_repeat_factor_sampler_repeats_what_is_rare():
    cfg = get_cfg()
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.4  # image 0's category is in a tenth: sqrt(4) times
    counts = Counter(configured_pass(cfg, dicts(10))(0, 0).tolist())
    assert counts == {0: 2, **dict.fromkeys(range(1, 10), 1)}


def test_an_unknown_sampler_is_refused():
    cfg = get_cfg()
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainSampler"
    with pytest.raises(
        ValueError, match=r"SAMPLER_TRAIN is 'TrainSampler'; it must be one of \['Training"
    ):
        configured_pass(cfg, dicts(2))


def test_groups_are_landscape_and_the_rest():
    images = [{"width": w, "height": 5} for w in (4, 5, 6)]
    assert np.array_equal(aspect_ratio_groups(images), [1, 1, 0])
