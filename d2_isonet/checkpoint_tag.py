"""Checkpoints that a resumed training does not go on from."""

import contextlib
from collections.abc import Iterator

from fvcore.common.checkpoint import Checkpointer


@contextlib.contextmanager
def untagged(checkpointer: Checkpointer) -> Iterator[None]:
    """Inside, `checkpointer.save` leaves the file last_checkpoint as it is."""
    checkpointer.tag_last_checkpoint = lambda basename: None
    try:
        yield
    finally:
        del checkpointer.tag_last_checkpoint
