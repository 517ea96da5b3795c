"""Checkpoint files that neither a kill nor a full disk spoils: how they are written and checked."""

import errno
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .full_disk import SaveError, disk_error

# What a zip of tensors has beside them: names, shapes, the optimizer's settings.
_OVERHEAD = 1 << 20  # bytes


def write_checkpoint(path: str | os.PathLike, content: Mapping | Sequence) -> None:
    """Write `content` by torch.save, as `write_complete` does.

    Raises:
        SaveError: there is no room, or the file cannot be written; nothing is left of it.
    """
    write_complete(path, lambda file: torch.save(content, file), damage_of, content)


def write_complete(
    path: str | os.PathLike,
    save: Callable[[BinaryIO], object],
    find_damage: Callable[[Path], str | None],
    content: Mapping | Sequence,
) -> None:
    """Write a file so that `path` is at every moment the old file or the whole new one.

    To a file beside it, flushed to the disk, read back and checked, then renamed.

    Args:
        save: writes to an open file.
        find_damage: of the written file, None for none.
        content: whose tensors tell how much room is needed.

    Raises:
        SaveError: there is no room, or the file cannot be written; nothing is left of it.
    """
    path = Path(path)
    _check_room(path, content)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        problem = find_damage(partial)
        if problem:
            raise OSError(errno.EIO, f"read back, it {problem}")
        os.replace(partial, path)
        _flush_folder(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        cause = disk_error(error)
        if cause is None:
            raise
        raise SaveError(f"{path} could not be written: {cause.strerror or cause}") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Replace the file at `path` as `write_checkpoint` does; raises SaveError."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _flush_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SaveError(f"{path} could not be written: {error.strerror}") from error


def _check_room(path: Path, content: Mapping | Sequence) -> None:
    needed = bytes_of(content) + _OVERHEAD
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise SaveError(f"{path} could not be written: {error.strerror}") from error
    if free < needed:
        raise SaveError(
            f"{path} was not written: it needs {needed / 1e6:.0f} MB, its disk has "
            f"{free / 1e6:.0f} MB left"
        )


def bytes_of(content: Any) -> int:
    """Bytes of all tensors in nested containers."""
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, Mapping):
        content = content.values()
    elif not isinstance(content, list | tuple):
        return 0
    return sum(bytes_of(x) for x in content)


def _flush_folder(folder: Path) -> None:
    """The rename itself reaches the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
