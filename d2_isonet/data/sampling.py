"""The order of the training images: a function of the seed and the iteration alone."""

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

from d2_isonet.config.options import check_name


def seed_of(*key: int | str) -> int:
    """The seed of 63 bits that belongs to `key`, e.g. (seed of the run, "image", position)."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Start Python's, NumPy's and torch's (CPU) generators from `seed`; restore them at the end.

    A loading process skips the restoring (0.1 ms in NumPy), since nothing else draws there.
    """
    before = None
    if get_worker_info() is None:
        before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs, too
    try:
        yield
    finally:
        if before is not None:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.default_generator.set_state(before[2])


_SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler")
# From (seed, epoch) to the indices of the images of one pass over the data set, in order.
Pass = Callable[[int, int], torch.Tensor]


class Draw(NamedTuple):
    """One image of a batch: its index in the data set, and the seed of its augmentation."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which a Draw does not need
    seed: int


def shuffled_pass(size: int) -> Pass:
    """Every image once, like detectron2's TrainingSampler."""
    return functools.partial(_shuffle, torch.arange(size))


def subset_pass(size: int, share: float) -> Pass:
    """The same random `share` of the images in every pass, like RandomSubsetTrainingSampler."""

    def indices(seed: int, epoch: int) -> torch.Tensor:
        subset = torch.randperm(size, generator=_generator(seed, "subset"))
        return _shuffle(subset[: max(1, int(size * share))], seed, epoch)

    return indices


def repeated_pass(factors: torch.Tensor) -> Pass:
    """Image i on average factors[i] times, like RepeatFactorTrainingSampler.

    Args:
        factors: (N,), each at least 1; every pass rounds fractions at random.
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
    """The pass over detectron2's data set dicts that cfg.DATALOADER.SAMPLER_TRAIN names.

    Raises:
        UserError: it names another sampler, which could not resume.
    """
    loader = cfg.DATALOADER
    check_name("DATALOADER.SAMPLER_TRAIN", loader.SAMPLER_TRAIN, _SAMPLERS)
    if loader.SAMPLER_TRAIN == "TrainingSampler":
        return shuffled_pass(len(dicts))
    if loader.SAMPLER_TRAIN == "RandomSubsetTrainingSampler":
        return subset_pass(len(dicts), loader.RANDOM_SUBSET_RATIO)
    # detectron2 HEAD has a key and an argument for this; v0.6 always does what is their default.
    options = {"sqrt": loader.REPEAT_SQRT} if "REPEAT_SQRT" in loader else {}
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        dicts, loader.REPEAT_THRESHOLD, **options
    )
    return repeated_pass(factors)


def aspect_ratio_groups(dicts: list[dict]) -> np.ndarray:
    """(N,): 0 for landscape images, 1 for the others, detectron2's two groups."""
    return np.array([0 if x["width"] > x["height"] else 1 for x in dicts])


class BatchOrder(Sampler):
    """Endless batches of this process, lists of `Draw`, starting at iteration `start`.

    The passes form one stream of images, of which each of N processes takes every N-th, as in
    detectron2. An image's augmentation depends on its position in the stream, so neither the
    number of loading processes nor that of training processes changes it.

    Args:
        one_pass: the images of a pass.
        batch_size: images per batch of this process.
        seed: of the run, the same on all processes.
        groups: (N,) a group for each image. A batch has images of one group, and is ready when
            the group has enough of them, as in detectron2's AspectRatioGroupedDataset. None for
            one group.
    """

    def __init__(
        self, one_pass: Pass, batch_size: int, seed: int, groups: np.ndarray | None = None
    ):
        self.one_pass = one_pass
        self.batch_size = batch_size
        self.seed = seed
        self.groups = groups
        self.start = 0
        self.options: dict[str, int] = {}  # the order depends on nothing else

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
