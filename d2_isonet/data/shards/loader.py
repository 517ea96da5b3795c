"""Loaders of classified images in tar shards, with the same samples as those of a folder."""

import itertools
from collections.abc import Callable, Iterator

from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from d2_isonet.config.options import check_range
from d2_isonet.data.loader import LoaderOptions, TrainLoader
from d2_isonet.data.sampling import seed_of, seeded
from d2_isonet.distributed.lifetime import outlive_signals
from d2_isonet.utils.messages import UserError

from .index import ShardedImages
from .order import ShardOrder
from .reading import read_shard

Mapper = Callable[[dict], dict]
Collate = Callable[[list[dict]], list[dict]]


class ShardTrainingBatches(IterableDataset):
    """Endless batches of one rank: its slots rank, rank + world size, ... of every iteration.

    Args:
        order: of the images; its batch size is that of all ranks.
        mapper: maps {"file_name", "image_id", "label", "data"}; its random numbers depend only on
            the order's seed and the image's position.
    """

    def __init__(self, images: ShardedImages, order: ShardOrder, mapper: Mapper, collate: Collate):
        self.images, self.order, self.mapper, self.collate = images, order, mapper, collate
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()

    def __iter__(self) -> Iterator[list[dict]]:
        worker, workers = _worker()
        reader = _LaneReader(self.images, self.order)
        size = self.order.batch_size
        for iteration in itertools.count(self.order.start + worker, workers):
            begin, end = iteration * size, (iteration + 1) * size
            positions = range(begin + self.rank, end, self.world_size)
            yield self.collate([self._mapped(reader.take(p), p) for p in positions])

    def _mapped(self, sample: dict, position: int) -> dict:
        with seeded(seed_of(self.order.seed, "image", position)):
            return map_sample(self.mapper, sample)


class _LaneReader:
    """Finds the image at each position; keeps one shard in memory for each lane in use."""

    def __init__(self, images: ShardedImages, order: ShardOrder):
        self.images, self.order = images, order
        self.shards: dict[int, tuple] = {}  # lane: its epoch, shard and images left

    def take(self, position: int) -> dict:
        """The image at `position`; take each position once, in rising order."""
        place = self.order.place(position)
        if self.shards.get(place.lane, (None,))[:2] != (place.epoch, place.shard):
            self.shards.pop(place.lane, None)  # before the next one takes memory
            members = self.order.members(place)
            shard = self.images.shards[place.shard]
            samples = read_shard(shard, len(self.images.classes), frozenset(members))
            in_order = dict(enumerate(map(samples.__getitem__, members), place.offset))
            self.shards[place.lane] = place.epoch, place.shard, in_order
        return self.shards[place.lane][2].pop(place.offset)


class ShardEvaluationBatches(IterableDataset):
    """The same batches as `build_image_test_loader` makes of a folder, each made by one worker."""

    def __init__(self, images: ShardedImages, mapper: Mapper, collate: Collate, batch_size: int):
        self.images, self.mapper, self.collate = images, mapper, collate
        indices = list(InferenceSampler(len(images)))  # contiguous, this rank's
        self.batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[dict]]:
        worker, workers = _worker()
        # Contiguous: if workers took batches in turn, each of them would read every shard.
        bounds = [len(self.batches) * i // workers for i in range(workers + 1)]
        batches = self.batches[bounds[worker] : bounds[worker + 1]]
        samples = self._samples(batches)
        for batch in batches:
            mapped = [map_sample(self.mapper, s) for s in itertools.islice(samples, len(batch))]
            yield self.collate(mapped)

    def _samples(self, batches: list[list[int]]) -> Iterator[dict]:
        if not batches:
            return
        first, last = batches[0][0], batches[-1][-1]
        begin = 0
        for shard in self.images.shards:
            wanted = range(max(first - begin, 0), min(last + 1 - begin, shard.samples))
            if wanted:
                samples = read_shard(shard, len(self.images.classes), wanted)
                yield from (samples.pop(number) for number in wanted)
            begin += shard.samples


def _worker() -> tuple[int, int]:
    """This worker's number and the number of workers; (0, 1) without workers."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


def map_sample(mapper: Mapper, sample: dict) -> dict:
    """mapper(sample); a UserError also says how to replace an image in a shard."""
    try:
        return mapper(sample)
    except UserError as error:
        raise UserError(
            f"{error} in the folder that the shards were made of, and make them again with "
            "d2-isonet make-shards"
        ) from error


def build_shard_train_loader(
    images: ShardedImages, mapper: Mapper, collate: Collate, options: LoaderOptions
) -> TrainLoader:
    """The training loader of `images`; it ignores `options.max_unreadable`.

    Raises:
        UserError: the processes cannot share a batch, or `options.shard_streams` is negative.
    """
    options.batch_size()  # refuses a batch that cannot be shared
    check_range("DATALOADER.SHARD_STREAMS", options.shard_streams)
    order = ShardOrder(
        [shard.samples for shard in images.shards],
        options.common_seed(),
        options.total_batch_size,
        options.shard_streams or comm.get_world_size(),
        max(options.num_workers, 1),
    )
    batches = ShardTrainingBatches(images, order, mapper, collate)
    # Workers make whole batches, in turn; `list` leaves a batch as it is.
    return TrainLoader(
        batches, order, batch_size=None, num_workers=options.num_workers, collate_fn=list
    )


def build_shard_test_loader(
    images: ShardedImages, mapper: Mapper, collate: Collate, batch_size: int, num_workers: int = 0
) -> DataLoader:
    """A loader of ShardEvaluationBatches; arguments as in `build_image_test_loader`."""
    batches = ShardEvaluationBatches(images, mapper, collate, batch_size)
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=outlive_signals,
    )
