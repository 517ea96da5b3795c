"""Finds the shard and image of each position in the endless, shuffled training order."""

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """The shard that a lane reads in an epoch, and an image's offset in the order of that epoch."""

    lane: int
    epoch: int
    shard: int
    offset: int


class ShardOrder:
    """The images of all shards in a random order, epoch after epoch: a function of position alone.

    Positions count the images of all processes: iteration i has positions i * batch_size to
    (i + 1) * batch_size - 1, and epoch e of n images has positions e * n to (e + 1) * n - 1. Every
    epoch has each image once, and a batch may span two epochs, as with TrainingSampler.

    Each epoch puts the shards, and the images in each of them, into a random order. This sequence
    is cut into contiguous parts, one for each lane. Position p belongs to stream
    (p mod batch_size) mod `streams` and to turn (p div batch_size) mod `turns`; both together are
    the lane. With as many streams as ranks and turns as workers, every worker of every rank has
    its own lane: its share of the images, to within a batch, and all but two of its shards are
    opened by no other worker.

    Args:
        sizes: images of each shard.
        seed: of the order.
        batch_size: images of an iteration, over all processes.
        streams: parts of a batch that come from different shards.
        turns: successive batches that come from different shards.
    """

    def __init__(self, sizes: Sequence[int], seed: int, batch_size: int, streams: int, turns: int):
        self.sizes = list(sizes)
        self.num_images = sum(self.sizes)
        self.seed = seed
        self.start = 0  # the iteration of the first batch
        self.batch_size, self.streams, self.turns = batch_size, streams, turns
        self._epochs: dict[tuple[int, int], tuple[list[int], ...]] = {}  # by seed and epoch

    @property
    def options(self) -> dict[str, int]:
        """What the order depends on, besides seed, batch and processes."""
        return {"shard_streams": self.streams, "shard_workers": self.turns}

    def place(self, position: int) -> Place:
        """The place of the image at `position`."""
        epoch = position // self.num_images
        batch, slot = divmod(position, self.batch_size)
        lane = batch % self.turns * self.streams + slot % self.streams
        shards, ends, before, starts = self._epoch(epoch)
        index = starts[lane] + self._before(position, lane) - before[lane]
        rank = bisect.bisect_right(ends, index)
        shard = shards[rank]
        return Place(lane, epoch, shard, index - (ends[rank] - self.sizes[shard]))

    def members(self, place: Place) -> list[int]:
        """Numbers in the tar file of the images that the lane takes, starting at `place`."""
        shards, ends, _, starts = self._epoch(place.epoch)
        size = self.sizes[place.shard]
        order = np.random.default_rng([self.seed, place.epoch, place.shard, 1]).permutation(size)
        first = ends[shards.index(place.shard)] - size
        return order[place.offset : starts[place.lane + 1] - first].tolist()

    def _epoch(self, epoch: int) -> tuple[list[int], ...]:
        key = self.seed, epoch
        if key not in self._epochs:
            if len(self._epochs) > 1:  # keep two, because a batch may span two
                self._epochs.pop(min(self._epochs))
            self._epochs[key] = self._lay_out(epoch)
        return self._epochs[key]

    def _lay_out(self, epoch: int) -> tuple[list[int], ...]:
        """Shards and their ends; each lane's positions before the epoch, and its start in it."""
        shards = np.random.default_rng([self.seed, epoch]).permutation(len(self.sizes)).tolist()
        ends = list(itertools.accumulate(self.sizes[shard] for shard in shards))
        begin, end = epoch * self.num_images, (epoch + 1) * self.num_images
        lanes = range(self.streams * self.turns)
        before = [self._before(begin, lane) for lane in lanes]
        counts = (self._before(end, lane) - before[lane] for lane in lanes)
        return shards, ends, before, list(itertools.accumulate(counts, initial=0))

    def _before(self, position: int, lane: int) -> int:
        """Number of positions below `position` that belong to the lane."""
        turn, stream = divmod(lane, self.streams)
        rounds, rest = divmod(position, self.batch_size * self.turns)
        begun = min(max(rest - turn * self.batch_size, 0), self.batch_size)
        return rounds * self._slots(self.batch_size, stream) + self._slots(begun, stream)

    def _slots(self, count: int, stream: int) -> int:
        """Number of the first `count` slots of a batch that belong to the stream."""
        return (count - stream + self.streams - 1) // self.streams
