"""Checkpoint files that neither a kill nor a full disk spoils: how they are written and checked."""

import os
import zipfile
from collections.abc import Mapping, Sequence

import torch

from d2_isonet.utils.files import write_complete


def write_checkpoint(path: str | os.PathLike, content: Mapping | Sequence) -> None:
    """Write `content` by torch.save, as `write_complete` does.

    Raises:
        SaveError: there is no room, or the file cannot be written; nothing is left of it.
    """
    write_complete(path, lambda file: torch.save(content, file), damage_of, content)


def damage_of(path: str | os.PathLike) -> str | None:
    """What is wrong with a checkpoint file, as "is empty (0 bytes)"; None for a good one.

    Every byte is read: unlike torch.load, this sees a single flipped bit.
    """
    if not os.path.isfile(path):
        return "does not exist"
    if os.path.getsize(path) == 0:
        return "is empty (0 bytes)"
    try:
        if not zipfile.is_zipfile(path):
            return _damage_of_old_format(path)
        with zipfile.ZipFile(path) as file:
            record = file.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        return f"is damaged ({error})"
    return f"is damaged (the checksum of its record {record} is wrong)" if record else None


def _damage_of_old_format(path: str | os.PathLike) -> str | None:
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling broken bytes can raise nearly anything
        return f"is truncated or no checkpoint ({type(error).__name__})"
    return None


def iteration_of(path: str | os.PathLike) -> int | None:
    """The last iteration (from 0) of the training saved in a file, read without its tensors.

    None where there is no training in it: weights alone, damage, another program's file.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
        return int(content["trainer"]["iteration"])
    except Exception:  # as above; that there is no training in it is the answer
        return None


def _is_zip(path: str | os.PathLike) -> bool:
    return os.path.isfile(path) and zipfile.is_zipfile(path)
