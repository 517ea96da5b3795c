"""Loaders of classified images from tar shards, as those of folders: the same batches' contents."""

import itertools
from collections.abc import Callable, Iterator

from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from d2_isonet.data.image_folder import UnreadableImage
from d2_isonet.data.loader import TrainLoader, images_per_process
from d2_isonet.data.sampling import seed_of, seeded
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
        mapper: gets {"file_name", "image_id", "label", "data"}; the random numbers it draws
            depend on the order's seed and the image's position alone.
    """

    def __init__(self, images: ShardedImages, order: ShardOrder, mapper: Mapper, collate: Collate):
        self.images, self.order, self.mapper, self.collate = images, order, mapper, collate
        self.start = 0  # the iteration that the first batch belongs to
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()

    def __iter__(self) -> Iterator[list[dict]]:
        worker, workers = _worker()
        reader = _LaneReader(self.images, self.order)
        size = self.order.batch_size
        for iteration in itertools.count(self.start + worker, workers):
            slots = range(self.rank, size, self.world_size)
            positions = [iteration * size + slot for slot in slots]
            yield self.collate([self._mapped(reader.take(p), p) for p in positions])

    def _mapped(self, sample: dict, position: int) -> dict:
        with seeded(seed_of(self.order.seed, "image", position)):
            return map_sample(self.mapper, sample)


class _LaneReader:
    """The image at each position, from one shard in memory for each lane asked for."""

    def __init__(self, images: ShardedImages, order: ShardOrder):
        self.images, self.order = images, order
        self.shards: dict[int, tuple] = {}  # lane: its epoch, shard and images left

    def take(self, position: int) -> dict:
        """Each position once, in rising order."""
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
    """The batches that `build_image_test_loader` makes of a folder, each made by one worker."""

    def __init__(self, images: ShardedImages, mapper: Mapper, collate: Collate, batch_size: int):
        self.images, self.mapper, self.collate = images, mapper, collate
        indices = list(InferenceSampler(len(images)))  # contiguous, this rank's
        self.batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[dict]]:
        worker, workers = _worker()
        # Contiguous: successive batches in other workers would have each shard read by all.
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
    """This worker's number and how many there are; (0, 1) without workers."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


def map_sample(mapper: Mapper, sample: dict) -> dict:
    """mapper(sample); an UnreadableImage also says how an image in a shard is replaced."""
    try:
        return mapper(sample)
    except UnreadableImage as error:
        raise UserError(
            f"{error} in the folder that the shards were made of, and make them anew with "
            "tools/make_shards.py"
        ) from error


class ShardTrainLoader(TrainLoader):
    """The TrainLoader of ShardTrainingBatches.

    Args:
        batches: each made by one worker, in turn.
    """

    def __init__(self, batches: ShardTrainingBatches, num_workers: int):
        super().__init__(batches, batch_size=None, num_workers=num_workers, collate_fn=_as_it_is)
        self._batches = batches

    @property
    def order_options(self) -> dict[str, int]:
        """On what the order of the images depends, beside seed, batch and processes."""
        order = self._batches.order
        return {"shard_streams": order.streams, "shard_workers": order.turns}

    def start_at(self, iteration: int, seed: int) -> None:
        self._batches.start = iteration
        self._batches.order = self._batches.order.of_seed(seed)


def build_shard_train_loader(
    images: ShardedImages,
    mapper: Mapper,
    collate: Collate,
    total_batch_size: int,
    num_workers: int = 0,
    seed: int | None = None,
    streams: int = 0,
) -> ShardTrainLoader:
    """The loader of `images`; arguments and batches as those of build_image_train_loader.

    Args:
        streams: parts of a batch that come from different shards; 0 for one a rank.

    Raises:
        UserError: the processes cannot share a batch, or `streams` is negative.
    """
    images_per_process(total_batch_size)  # refuses what cannot be shared
    if streams < 0:
        raise UserError(f"DATALOADER.SHARD_STREAMS is {streams}", "it must not be negative")
    order = ShardOrder(
        [shard.samples for shard in images.shards],
        int(comm.shared_random_seed()) if seed is None else seed,
        total_batch_size,
        streams or comm.get_world_size(),
        max(num_workers, 1),
    )
    return ShardTrainLoader(ShardTrainingBatches(images, order, mapper, collate), num_workers)


def build_shard_test_loader(
    images: ShardedImages, mapper: Mapper, collate: Collate, batch_size: int, num_workers: int = 0
) -> DataLoader:
    """A loader of ShardEvaluationBatches; arguments as in build_image_test_loader."""
    batches = ShardEvaluationBatches(images, mapper, collate, batch_size)
    return DataLoader(batches, batch_size=None, num_workers=num_workers, collate_fn=_as_it_is)


def _as_it_is(batch: list[dict]) -> list[dict]:
    return batch
