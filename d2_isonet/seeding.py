"""Random numbers that are a function of the seed and of where a training stands."""

import contextlib
import hashlib
import logging
import random
from collections.abc import Iterator

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch.utils.data import get_worker_info

logger = logging.getLogger(__name__)


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


def settle_seed(cfg: CfgNode) -> CfgNode:
    """`cfg`, or a copy with a seed drawn for all processes where SEED is negative."""
    if cfg.SEED >= 0:
        return cfg
    frozen, cfg = cfg.is_frozen(), cfg.clone()
    cfg.defrost()
    cfg.SEED = int(comm.shared_random_seed())
    logger.info(f"SEED is -1: drew {cfg.SEED} for this run")
    if frozen:
        cfg.freeze()
    return cfg


class StepSeed(HookBase):
    """Every step's random numbers (dropout, sampled proposals, mixup, ...) from its own seed.

    So no generator's state needs to be saved, on any process or GPU, and what an evaluation or
    a hook draws between two steps changes neither the steps after it nor a resumed run.
    """

    def before_step(self) -> None:
        seed = seed_of(self.trainer.seed, "step", self.trainer.iter, comm.get_rank())
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)  # of the GPUs too
