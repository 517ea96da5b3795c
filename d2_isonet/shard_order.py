"""Where in the shards each position of the endless, shuffled training order lies."""

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
    own: its share of the images, to within one, in shards that (but for two) no other opens.

    Args:
        sizes: images of each shard.
        seed: of the order.
        batch_size: images of an iteration, over all processes.
        streams: parts of a batch that come from different shards.
        turns: successive batches that come from different shards.
    """

    def __init__(self, sizes: Sequence[int], seed: int, batch_size: int, streams: int, turns: int):
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.num_images = int(self.sizes.sum())
        self.seed = seed
        self.batch_size, self.streams, self.turns = batch_size, streams, turns
        self._epochs: dict[int, tuple[np.ndarray, ...]] = {}

    def of_seed(self, seed: int) -> "ShardOrder":
        """The order of another seed."""
        return ShardOrder(self.sizes, seed, self.batch_size, self.streams, self.turns)

    def place(self, position: int) -> Place:
        """Of the image at `position`."""
        epoch = position // self.num_images
        batch, slot = divmod(position, self.batch_size)
        lane = batch % self.turns * self.streams + slot % self.streams
        shards, ends, before, starts = self._epoch(epoch)
        index = int(starts[lane] + self._before(position)[lane] - before[lane])
        rank = int(np.searchsorted(ends, index, side="right"))
        shard = int(shards[rank])
        return Place(lane, epoch, shard, index - int(ends[rank] - self.sizes[shard]))

    def members(self, place: Place) -> np.ndarray:
        """Numbers in the tar file of the images that the lane of `place` takes, from it on."""
        shards, ends, before, starts = self._epoch(place.epoch)
        order = np.random.default_rng([self.seed, place.epoch, place.shard, 1])
        order = order.permutation(self.sizes[place.shard])
        rank = int(np.flatnonzero(shards == place.shard)[0])
        first = int(ends[rank] - self.sizes[place.shard])
        lane_end = int(starts[place.lane + 1])
        return order[place.offset : max(lane_end - first, 0)]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, ...]:
        if epoch not in self._epochs:
            if len(self._epochs) > 1:  # two, because a batch may span as many
                self._epochs.pop(min(self._epochs))
            self._epochs[epoch] = self._lay_out(epoch)
        return self._epochs[epoch]

    def _lay_out(self, epoch: int) -> tuple[np.ndarray, ...]:
        """Shards, where each ends; positions of each lane before the epoch; their sums in it."""
        shards = np.random.default_rng([self.seed, epoch]).permutation(len(self.sizes))
        before = self._before(epoch * self.num_images)
        counts = self._before((epoch + 1) * self.num_images) - before
        return shards, np.cumsum(self.sizes[shards]), before, np.cumsum([0, *counts])

    def _before(self, position: int) -> np.ndarray:
        """How many positions below `position` each lane has."""
        rounds, rest = divmod(position, self.batch_size * self.turns)
        streams = np.arange(self.streams)
        turns = np.arange(self.turns)[:, None]

        def slots(count: int | np.ndarray) -> np.ndarray:
            return (count - streams + self.streams - 1) // self.streams

        begun = np.clip(rest - turns * self.batch_size, 0, self.batch_size)
        return (rounds * slots(self.batch_size) + slots(begun)).reshape(-1)
