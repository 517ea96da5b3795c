"""The order of the training images: a function of the seed and the iteration, known at any time."""

import contextlib
import functools
import hashlib
import itertools
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.utils import comm
from torch.utils.data import Sampler, get_worker_info

from d2_isonet.utils.messages import UserError


def seed_of(*key: int | str) -> int:
    """The seed of 63 bits that belongs to `key`, e.g. (seed of the run, "image", position)."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's, NumPy's and torch's (CPU) generators start from `seed`; then as if never used.

    In a loading process nobody else draws from them: that they are kept, which takes NumPy 0.1 ms,
    is left out there.
    """
    alone = get_worker_info() is not None
    before = None if alone else _states()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would restart the GPUs' too
    try:
        yield
    finally:
        if before is not None:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.default_generator.set_state(before[2])


def _states() -> tuple:
    return random.getstate(), np.random.get_state(), torch.default_generator.get_state()


# (seed, epoch) -> indices of the images of one pass over the data set, in order
Pass = Callable[[int, int], torch.Tensor]


class Draw(NamedTuple):
    """One image of a batch: which it is, and the seed of its augmentation."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a Draw
    seed: int


def shuffled_pass(size: int) -> Pass:
    """Every image once, as detectron2's TrainingSampler."""
    return functools.partial(_shuffle, torch.arange(size))


def subset_pass(size: int, share: float) -> Pass:
    """The same random `share` of the images in every pass, as RandomSubsetTrainingSampler."""

    def indices(seed: int, epoch: int) -> torch.Tensor:
        subset = torch.randperm(size, generator=_generator(seed, "subset"))
        return _shuffle(subset[: max(1, int(size * share))], seed, epoch)

    return indices


def repeated_pass(factors: torch.Tensor) -> Pass:
    """Image i on average factors[i] times, as RepeatFactorTrainingSampler.

    Args:
        factors: (N,), each at least 1; fractions are rounded at random, anew in every pass.
    """

    def indices(seed: int, epoch: int) -> torch.Tensor:
        rounding = torch.rand(len(factors), generator=_generator(seed, "repeats", epoch))
        repeats = (factors.trunc() + (rounding < factors.frac())).long()
        return _shuffle(torch.arange(len(factors)).repeat_interleave(repeats), seed, epoch)

    return indices


def _shuffle(indices: torch.Tensor, seed: int, epoch: int) -> torch.Tensor:
    return indices[torch.randperm(len(indices), generator=_generator(seed, "epoch", epoch))]


def _generator(*key: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*key))


def configured_pass(cfg: CfgNode, dicts: list[dict]) -> Pass:
    """What cfg.DATALOADER.SAMPLER_TRAIN asks for, over detectron2's data set dicts.

    Raises:
        UserError: that is no sampler which can resume.
    """
    loader = cfg.DATALOADER
    if loader.SAMPLER_TRAIN == "TrainingSampler":
        return shuffled_pass(len(dicts))
    if loader.SAMPLER_TRAIN == "RandomSubsetTrainingSampler":
        return subset_pass(len(dicts), loader.RANDOM_SUBSET_RATIO)
    if loader.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        # a key and an argument of detectron2 HEAD; what v0.6 does is its default
        options = {"sqrt": loader.REPEAT_SQRT} if "REPEAT_SQRT" in loader else {}
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dicts, loader.REPEAT_THRESHOLD, **options
        )
        return repeated_pass(factors)
    raise UserError(
        f"DATALOADER.SAMPLER_TRAIN is {loader.SAMPLER_TRAIN!r}",
        "it must be 'TrainingSampler', "
        "'RepeatFactorTrainingSampler' or 'RandomSubsetTrainingSampler'",
    )


def aspect_ratio_groups(dicts: list[dict]) -> np.ndarray:
    """(N,): 0 for landscape images, 1 for the others, detectron2's two groups."""
    return np.array([0 if x["width"] > x["height"] else 1 for x in dicts])


class BatchOrder(Sampler):
    """This process's batches, lists of `Draw`, without end, from iteration `start` on.

    The passes follow each other as one stream of images; of N processes each takes every N-th, as
    in detectron2. An image's augmentation follows its position in that stream, so neither the
    number of loading processes nor that of training processes changes it.

    Args:
        one_pass: the images of a pass.
        batch_size: images per batch of this process.
        seed: of the run, the same on all processes.
        groups: (N,) a group for each image; a batch has images of one group, and comes when that
            group has enough, as from detectron2's AspectRatioGroupedDataset. None for one group.
    """

    def __init__(
        self, one_pass: Pass, batch_size: int, seed: int, groups: np.ndarray | None = None
    ):
        self.one_pass = one_pass
        self.batch_size = batch_size
        self.seed = seed
        self.groups = groups
        self.start = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        skipped, offset = 0, 0
        waiting = np.empty((0, 2), dtype=np.int64)  # rows (position, index)
        for epoch in itertools.count():
            indices = self.one_pass(self.seed, epoch).numpy()
            images = np.stack([np.arange(offset, offset + len(indices)), indices], axis=1)
            offset += len(indices)
            own = images[images[:, 0] % comm.get_world_size() == comm.get_rank()]
            batches, waiting = self._full_batches(np.concatenate([waiting, own]))
            first = min(self.start - skipped, len(batches))
            skipped += first
            for batch in batches[first:].tolist():
                yield [Draw(i, seed_of(self.seed, "image", position)) for position, i in batch]

    def _full_batches(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M, batch_size, 2) in the order in which they fill, and the rows left over."""
        groups = np.zeros(len(images)) if self.groups is None else self.groups[images[:, 1]]
        full, waiting = [], []
        for group in (0,) if self.groups is None else np.unique(self.groups):
            members = images[groups == group]
            number = len(members) // self.batch_size
            full.append(members[: number * self.batch_size].reshape(number, self.batch_size, 2))
            waiting.append(members[number * self.batch_size :])
        batches = np.concatenate(full)
        filled_at = batches[:, -1, 0]  # the position of a batch's last image
        return batches[np.argsort(filled_at)], np.concatenate(waiting)
