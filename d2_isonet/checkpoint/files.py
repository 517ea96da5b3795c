"""Writes checkpoints that a kill or a full disk cannot damage, and finds the newest good one."""

import itertools
import logging
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm

from d2_isonet.utils.files import read_regular, tolerate, write_complete
from d2_isonet.utils.messages import UserError, printable

from .reading import what_is_wrong
from .safetensors_file import SUFFIX, write_safetensors

logger = logging.getLogger(__name__)
_MOST_ITERATIONS = 10**10


def write_checkpoint(path: str | os.PathLike, content: Any) -> None:
    """Write `content` by `write_complete`, as safetensors if `path` ends so, else by torch.save.

    Raises SaveError if there is no room or the file cannot be written. No part of it stays.
    """
    if os.fspath(path).endswith(SUFFIX):
        write_safetensors(path, content)
    else:
        write_complete(path, lambda file: torch.save(content, file), damage_of, content)


def damage_of(path: str | os.PathLike) -> str | None:
    """What is wrong with a checkpoint file, such as "is empty (0 bytes)"; None for a good one.

    It reads every byte: unlike torch.load, it detects a single flipped bit.
    """
    if not os.path.exists(path):
        return "does not exist"
    problem = what_is_wrong(os.fspath(path))
    if problem:
        return problem
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                record = file.testzip()
            return f"is damaged (the checksum of its record {record} is wrong)" if record else None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        return f"is damaged ({error})"
    try:
        torch.load(path, map_location="cpu", weights_only=True)  # the format before torch 1.6
    except Exception as error:  # unpickling broken bytes can raise nearly anything
        return f"is truncated or no checkpoint ({type(error).__name__})"
    return None


def iteration_of(path: str | os.PathLike) -> int | None:
    """The last iteration (from 0) of the training in a file, read without its tensors.

    None if the file holds no training: weights alone, damage, another program's file, an iteration
    that no training reaches.
    """
    try:
        if what_is_wrong(os.fspath(path)):
            return None
        is_zip = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        iteration = content["trainer"]["iteration"]
    except Exception:  # as above: the file holds no training
        return None
    return iteration if type(iteration) is int and 0 <= iteration <= _MOST_ITERATIONS else None


TAG = "last_checkpoint"
_LONGEST_TAG = 4096  # bytes


def checkpoint_to_resume(folder: str | os.PathLike) -> str:
    """What `find_checkpoint` returns or raises on the main process, on every one; "" for None."""
    found: str | UserError = ""
    if comm.is_main_process():
        try:
            found = str(find_checkpoint(folder) or "")
        except UserError as error:
            found = error
    found = comm.all_gather(found)[0]
    if isinstance(found, UserError):
        raise found
    return found


def find_checkpoint(folder: str | os.PathLike) -> Path | None:
    """The file that last_checkpoint names or, if it is not good, the newest good one; warns then.

    None if there is no checkpoint of a training at all. Raises UserError if none is good.
    """
    folder = Path(folder)
    tagged, reason = _tagged(folder)
    if not reason:
        return tagged
    problems = [reason]
    for path in _newest_first(folder):
        problem = damage_of(path)
        if problem is None:
            logger.warning(
                f"{'; '.join(problems)}. Resuming from the newest good checkpoint, {path.name} "
                f"(iteration {iteration_of(path)})"
            )
            return path
        if path != tagged:
            problems.append(f"{path.name} {problem}")
    if tagged or len(problems) > 1 or os.path.lexists(folder / TAG):
        raise UserError(
            f"No checkpoint in {folder.resolve()} is good: {'; '.join(problems)}",
            "put a good one there, or leave out --resume to start at iteration 0",
        )
    return None


def _tagged(folder: Path) -> tuple[Path | None, str]:
    """The file that last_checkpoint names, None if it names none, and why not to resume from it."""
    try:
        name = read_regular(folder / TAG, _LONGEST_TAG).decode().strip()
    except FileNotFoundError:
        return None, f"{folder} has no file {TAG}"
    except (OSError, UnicodeDecodeError, UserError) as error:
        return None, f"{folder / TAG} cannot be read ({error})"
    if not name:
        return None, f"{folder / TAG} is empty"
    if name != os.path.basename(printable(name)):
        return None, f"{folder / TAG} names {printable(name)}, which is no file of this folder"
    # safetensors are weights alone: no reason to read the whole file
    problem = None if name.endswith(SUFFIX) else damage_of(folder / name)
    if problem is None and iteration_of(folder / name) is None:
        problem = "has weights but no training to resume"
    return folder / name, f"{folder / TAG} names {name}, which {problem}" if problem else ""


def _newest_first(folder: Path) -> list[Path]:
    """Checkpoints of trainings, the highest iteration first, then unreadable files."""
    files = {path: iteration_of(path) for path in sorted(folder.glob("*.pth"), reverse=True)}
    trainings = [p for p, iteration in files.items() if iteration is not None]
    trainings.sort(key=lambda p: (files[p], p.stat().st_mtime), reverse=True)
    return [*trainings, *(p for p in files if p not in trainings and damage_of(p))]


def set_aside_earlier_run(folder: str | os.PathLike) -> Path | None:
    """Move the checkpoints of an earlier run, and all model_*, into a new folder; return it.

    The run that begins now overwrites none of them and resumes from none. metrics.json is copied
    there and begins anew.
    """
    folder = Path(folder)
    files = {p for p in folder.glob("*.pth") if iteration_of(p) is not None}
    if not files and not (folder / TAG).is_file():
        return None
    files.update(folder.glob("model_*"))
    asides = (folder / f"earlier_run_{number}" for number in itertools.count(1))
    aside = next(path for path in asides if not path.exists())
    aside.mkdir()
    for path in (folder / TAG, *files):
        if path.is_file():
            os.replace(path, aside / path.name)
    metrics = folder / "metrics.json"
    if metrics.is_file():
        with tolerate(aside / metrics.name, "metrics.json stays, and this run appends to it"):
            shutil.copy2(metrics, aside)
            os.truncate(metrics, 0)  # this run's writer may have it open for appending
    logger.warning(
        f"{folder.resolve()} has an earlier run's checkpoints, and this run starts at iteration 0 "
        f"(no --resume): moved them and metrics.json to {aside.name}/. To continue "
        "that run, stop this one, move them back and add --resume"
    )
    return aside
