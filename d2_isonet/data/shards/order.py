"""Where in the shards each position of the endless, shuffled training order lies."""

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """A shard as it is read in one epoch by one lane, and an image's place in its order then."""

    lane: int
    epoch: int
    shard: int
    offset: int


class ShardOrder:
    """The images of all shards in a random order, epoch after epoch: a function of position alone.

    Positions count the images of all processes: iteration i has positions i * batch_size to
    (i + 1) * batch_size - 1, epoch e positions e * n to (e + 1) * n - 1, n images in all. Every
    epoch has each image once, and a batch may span two epochs, as with TrainingSampler.

    An epoch's shards stand in a random order, and so do the images of each. Cut into contiguous
    parts, one for a lane, this sequence is dealt out to the positions of the lanes: position p is
    of stream (p mod batch_size) mod `streams` and of turn (p div batch_size) mod `turns`. With
    as many streams as ranks and turns as workers, every worker of every rank has a lane of its
    own: its share of the images, to within a batch, in shards that (but for two) no other opens.

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
        self.batch_size, self.streams, self.turns = batch_size, streams, turns
        self._epochs: dict[int, tuple[list[int], ...]] = {}

    def of_seed(self, seed: int) -> "ShardOrder":
        """The order of another seed."""
        return ShardOrder(self.sizes, seed, self.batch_size, self.streams, self.turns)

    def place(self, position: int) -> Place:
        """Of the image at `position`."""
        epoch = position // self.num_images
        batch, slot = divmod(position, self.batch_size)
        lane = batch % self.turns * self.streams + slot % self.streams
        shards, ends, before, starts = self._epoch(epoch)
        index = starts[lane] + self._before(position, lane) - before[lane]
        rank = bisect.bisect_right(ends, index)
        shard = shards[rank]
        return Place(lane, epoch, shard, index - (ends[rank] - self.sizes[shard]))

    def members(self, place: Place) -> list[int]:
        """Numbers in the tar file of the images that the lane of `place` takes, from it on."""
        shards, ends, _, starts = self._epoch(place.epoch)
        size = self.sizes[place.shard]
        order = np.random.default_rng([self.seed, place.epoch, place.shard, 1]).permutation(size)
        first = ends[shards.index(place.shard)] - size
        return order[place.offset : starts[place.lane + 1] - first].tolist()

    def _epoch(self, epoch: int) -> tuple[list[int], ...]:
        if epoch not in self._epochs:
            if len(self._epochs) > 1:  # two, because a batch may span as many
                self._epochs.pop(min(self._epochs))
            self._epochs[epoch] = self._lay_out(epoch)
        return self._epochs[epoch]

    def _lay_out(self, epoch: int) -> tuple[list[int], ...]:
        """Shards, where each ends; positions of each lane before the epoch; their sums in it."""
        shards = np.random.default_rng([self.seed, epoch]).permutation(len(self.sizes)).tolist()
        ends = list(itertools.accumulate(self.sizes[shard] for shard in shards))
        begin, end = epoch * self.num_images, (epoch + 1) * self.num_images
        lanes = range(self.streams * self.turns)
        before = [self._before(begin, lane) for lane in lanes]
        counts = (self._before(end, lane) - before[lane] for lane in lanes)
        return shards, ends, before, list(itertools.accumulate(counts, initial=0))

    def _before(self, position: int, lane: int) -> int:
        """How many positions below `position` the lane has."""
        turn, stream = divmod(lane, self.streams)
        rounds, rest = divmod(position, self.batch_size * self.turns)
        begun = min(max(rest - turn * self.batch_size, 0), self.batch_size)
        return rounds * self._slots(self.batch_size, stream) + self._slots(begun, stream)

    def _slots(self, count: int, stream: int) -> int:
        """How many of the first `count` slots of a batch are of the stream."""
        return (count - stream + self.streams - 1) // self.streams
