"""Random numbers that are a function of the seed and of where a training stands."""

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import get_worker_info


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
