"""Loading training batches so that any of them can be the first: for a run that is resumed."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, build_detection_train_loader
from detectron2.data.build import trivial_batch_collator
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from d2_isonet.utils.messages import UserError

from .sampling import BatchOrder, Draw, aspect_ratio_groups, configured_pass, seeded
from .unreadable_images import Mapper, build_tolerant_loader

_MOST_REPLACEMENTS = 100


class SeededImages(Dataset):
    """Data set dicts through a mapper whose random numbers are the draw's.

    Where the mapper returns None (an image to skip), another image takes its place, the same one
    in every run.
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
    """An endless DataLoader that can be told, until the first batch is taken, where to start."""

    def __init__(self, dataset: Dataset, **options):
        # its own generator: else it would draw from the training's
        super().__init__(dataset, generator=torch.Generator(), **options)

    def start_at(self, iteration: int, seed: int) -> None:
        """The next iterator begins with the batch of `iteration` (from 0) of a run with `seed`."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[list[dict]]:  # type: ignore[override]
        # A generator, so that nothing is read before the first batch is asked for: detectron2
        # v0.6 makes the iterator before the checkpoint is loaded.
        yield from super().__iter__()


class ResumableLoader(TrainLoader):
    """The TrainLoader of the batches of a BatchOrder."""

    def __init__(self, dataset: Dataset, order: BatchOrder, num_workers: int, collate_fn: Callable):
        super().__init__(
            dataset, batch_sampler=order, num_workers=num_workers, collate_fn=collate_fn
        )
        self._order = order

    def start_at(self, iteration: int, seed: int) -> None:
        self._order.start = iteration
        self._order.seed = seed


def images_per_process(total_batch_size: int) -> int:
    world_size = comm.get_world_size()
    if total_batch_size < 1 or total_batch_size % world_size:
        raise UserError(
            f"A batch of {total_batch_size} images cannot be shared by {world_size} processes"
        )
    return total_batch_size // world_size


def build_detection_loader(cfg: CfgNode, mapper: Mapper) -> Iterable[list[dict]]:
    """detectron2's training loader for `cfg`, resumable: the same images, filters and groups.

    It bears DATALOADER.MAX_UNREADABLE images that cannot be read.
    """
    parts = build_detection_train_loader.from_config(cfg, mapper=mapper, sampler="ours")
    groups = aspect_ratio_groups(parts["dataset"]) if parts["aspect_ratio_grouping"] else None
    one_pass = configured_pass(cfg, parts["dataset"])
    batch_size = images_per_process(parts["total_batch_size"])
    order = BatchOrder(one_pass, batch_size, max(0, cfg.SEED), groups)
    dicts = DatasetFromList(parts["dataset"], copy=False)  # loading processes share one array

    def build(mapper: Mapper) -> ResumableLoader:
        images = SeededImages(dicts, mapper)
        return ResumableLoader(images, order, parts["num_workers"], trivial_batch_collator)

    return build_tolerant_loader(build, mapper, dicts, cfg.DATALOADER.MAX_UNREADABLE)
