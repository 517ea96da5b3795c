"""Training loaders that can start at any batch, so that a resumed run sees the same images."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, build_detection_train_loader
from detectron2.data.build import trivial_batch_collator
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from d2_isonet.distributed.lifetime import outlive_signals
from d2_isonet.utils.messages import UserError

from .coco_json import malformed_keypoints_left_out
from .sampling import BatchOrder, Draw, Pass, aspect_ratio_groups, configured_pass, seeded
from .shards.order import ShardOrder
from .unreadable_images import CountingLoader, Mapper, ReplacingMapper

_MOST_REPLACEMENTS = 100


@dataclass(frozen=True)
class LoaderOptions:
    """How training images are batched, ordered and loaded.

    Args:
        total_batch_size: images per batch over all processes, whose number must divide it.
        num_workers: loading processes per training process. They do not change the batches, except
            those of shards.
        seed: of the order of the images and of their augmentation, the same on every rank; if
            None, the processes draw a common one.
        max_unreadable: DATALOADER.MAX_UNREADABLE, the share of the images that may be unreadable;
            with 0, and in shards, the first one stops the training.
        shard_streams: DATALOADER.SHARD_STREAMS, the parts of a batch that come from different
            shards; 0 for one per process.
    """

    total_batch_size: int
    num_workers: int = 0
    seed: int | None = None
    max_unreadable: float = 0.0
    shard_streams: int = 0

    def batch_size(self) -> int:
        """Images per batch of each process; raises UserError if they cannot be shared evenly."""
        world_size = comm.get_world_size()
        if self.total_batch_size < 1 or self.total_batch_size % world_size:
            raise UserError(
                f"A batch of {self.total_batch_size} images cannot be shared by {world_size} "
                "processes",
                "choose a multiple of their number",
            )
        return self.total_batch_size // world_size

    def common_seed(self) -> int:
        """The seed of all processes; call it once on each of them."""
        return int(comm.shared_random_seed()) if self.seed is None else self.seed


class SeededImages(Dataset):
    """Data set dicts through a mapper whose random numbers come from the seed of the draw.

    If the mapper returns None (an image to skip), another image replaces it, the same one in every
    run.
    """

    def __init__(self, dicts: Sequence[dict], mapper: Mapper):
        self.dicts = dicts
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.dicts)

    def __getitem__(self, draw: Draw) -> dict:
        index = draw.index
        with seeded(draw.seed):
            for _ in range(_MOST_REPLACEMENTS):
                image = self.mapper(self.dicts[index])
                if image is not None:
                    return image
                index = random.randrange(len(self))
        raise UserError(f"The mapper skipped {_MOST_REPLACEMENTS} images in a row")


class TrainLoader(DataLoader):
    """An endless DataLoader that can start at any iteration.

    Args:
        order: of the images; its `start` and `seed` decide which batches come.
    """

    def __init__(self, dataset: Dataset, order: BatchOrder | ShardOrder, **options):
        # With a generator of its own, it does not draw from the training's.
        super().__init__(
            dataset, generator=torch.Generator(), worker_init_fn=outlive_signals, **options
        )
        self._order = order

    @property
    def order_options(self) -> dict[str, int]:
        """What the order of the images depends on, besides seed, batch and processes."""
        return self._order.options

    def start_at(self, iteration: int, seed: int) -> None:
        """Let the next iterator begin with the batch of `iteration` (from 0) of a run with `seed`.

        Call it before the first batch is taken.
        """
        self._order.start = iteration
        self._order.seed = seed

    def __iter__(self) -> Iterator[list[dict]]:  # type: ignore[override]
        # A generator reads nothing until the first batch is requested: detectron2 v0.6 makes the
        # iterator before it loads the checkpoint.
        yield from super().__iter__()


def build_resumable_loader(
    dicts: list[dict],
    mapper: Mapper,
    one_pass: Pass,
    options: LoaderOptions,
    collate_fn: Callable,
    groups: np.ndarray | None = None,
) -> Iterable[list[dict]]:
    """An endless loader of the batches of `BatchOrder(one_pass, ..., groups)`.

    It replaces unreadable images up to `options.max_unreadable`.
    """
    order = BatchOrder(one_pass, options.batch_size(), options.common_seed(), groups)
    # Serialized: workers share one array instead of copying a million dicts page by page.
    shared = DatasetFromList(dicts, copy=False)
    limit = options.max_unreadable
    images = SeededImages(shared, ReplacingMapper(mapper, shared) if limit else mapper)
    loader = TrainLoader(
        images, order, batch_sampler=order, num_workers=options.num_workers, collate_fn=collate_fn
    )
    return CountingLoader(loader, len(shared), limit) if limit else loader


def build_detection_loader(cfg: CfgNode, mapper: Mapper) -> Iterable[list[dict]]:
    """detectron2's training loader for `cfg`, resumable: the same images, filters and groups."""
    with malformed_keypoints_left_out():
        parts = build_detection_train_loader.from_config(cfg, mapper=mapper, sampler="ours")
    dicts = parts["dataset"]
    groups = aspect_ratio_groups(dicts) if parts["aspect_ratio_grouping"] else None
    options = LoaderOptions(
        parts["total_batch_size"],
        parts["num_workers"],
        seed=max(0, cfg.SEED),
        max_unreadable=cfg.DATALOADER.MAX_UNREADABLE,
    )
    one_pass = configured_pass(cfg, dicts)
    return build_resumable_loader(dicts, mapper, one_pass, options, trivial_batch_collator, groups)
