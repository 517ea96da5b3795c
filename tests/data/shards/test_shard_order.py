"""The order of images in shards: every image once an epoch, each lane in few shards."""

from collections import Counter

import pytest

from d2_isonet.data.shards.order import ShardOrder

CASES = [  # sizes, batch_size, streams, turns
    ([5, 5, 5], 3, 1, 1),
    ([4, 7, 1, 5], 4, 2, 3),
    ([4, 7, 1, 5], 6, 3, 2),
    ([3, 2], 8, 4, 2),  # a batch spans several epochs
    ([1], 1, 1, 4),
    ([6, 6], 4, 3, 1),  # streams that do not divide the batch
    ([6, 6], 2, 5, 2),  # more streams than images in a batch
]


def image(order: ShardOrder, position: int) -> tuple[int, int]:
    place = order.place(position)
    return place.shard, order.members(place)[0]


@pytest.mark.parametrize(("sizes", "batch_size", "streams", "turns"), CASES)
def test_every_epoch_has_every_image_once(sizes, batch_size, streams, turns):
    order = ShardOrder(sizes, 3, batch_size, streams, turns)
    everything = {(s, m): 1 for s, size in enumerate(sizes) for m in range(size)}
    for epoch in range(4):
        positions = range(epoch * sum(sizes), (epoch + 1) * sum(sizes))
        assert Counter(image(order, p) for p in positions) == everything


@pytest.mark.parametrize(("sizes", "batch_size", "streams", "turns"), CASES)
def test_any_position_can_be_the_first_asked_for(sizes, batch_size, streams, turns):
    order = ShardOrder(sizes, 3, batch_size, streams, turns)
    in_turn = [image(order, p) for p in range(3 * sum(sizes) + 1)]
    for position in (2 * sum(sizes) + 1, 1, sum(sizes)):
        fresh = ShardOrder(sizes, 3, batch_size, streams, turns)
        assert image(fresh, position) == in_turn[position]


def test_members_are_what_the_lane_takes_from_its_shard():
    order = ShardOrder([9, 8, 10], 1, 4, 2, 2)
    for lane in range(4):
        positions = [p for p in range(27) if order.place(p).lane == lane]
        taken = [image(order, p) for p in positions]
        while taken:
            place = order.place(positions[len(positions) - len(taken)])
            members = [(place.shard, m) for m in order.members(place)]
            assert taken[: len(members)] == members
            taken = taken[len(members) :]


def test_lanes_share_an_epoch_evenly_and_no_shard_but_those_at_their_ends():
    order = ShardOrder([50] * 12, 0, 8, 4, 2)
    places = [order.place(p) for p in range(600)]
    assert set(Counter(place.lane for place in places).values()) <= {74, 75, 76}
    assert len({(place.lane, place.shard) for place in places}) <= 12 + 8 - 1


def test_seed_and_epoch_change_shards_and_their_images():
    orders = [ShardOrder([20] * 5, seed, 4, 1, 1) for seed in (0, 1)]
    runs = [[image(o, p) for p in range(start, start + 100)] for o in orders for start in (0, 100)]
    assert len({tuple(shard for shard, _ in run) for run in runs}) == 4
    assert len({tuple(sorted(run)) for run in runs}) == 1
    within = [tuple(member for shard, member in run if shard == 0) for run in runs]
    assert len(set(within)) == 4


def test_the_order_of_another_seed_is_that_of_its_own():
    order = ShardOrder([6, 7], 0, 2, 1, 1)
    image(order, 3)
    order.seed = 5  # after a place was found with the first seed
    expected = ShardOrder([6, 7], 5, 2, 1, 1)
    assert [image(order, p) for p in range(30)] == [image(expected, p) for p in range(30)]
