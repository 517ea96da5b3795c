"""Writes tar shards with unchanged image bytes; a shard is complete or does not exist."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import BinaryIO, TextIO

from filelock import FileLock, Timeout
from webdataset import TarWriter

from d2_isonet.data.image_file import read_file
from d2_isonet.utils.files import MOST_RECORD_BYTES, parse_json, read_regular, write_text
from d2_isonet.utils.messages import UserError

from .index import FORMAT, INDEX_NAME, JOURNAL_NAME, VERSION
from .plan import Plan, PlannedShard, record_of

_LOCK_NAME = "shards.partial.lock"  # exists while a process writes; the lock of a dead one is free
_ANOTHER = (
    "give the folder, sizes and seed that they were made with, or another --output (or remove it)"
)


def is_finished(output: Path, plan: Plan) -> bool:
    """Whether `output` holds the index of this plan's shards.

    Raises:
        UserError: it holds the index of another plan, or tar files of unknown origin.
    """
    index = output / INDEX_NAME
    if index.exists():
        if _parsed(index, read_regular(index, MOST_RECORD_BYTES)).get("plan") != plan.sha256:
            raise UserError(f"{output} holds the finished shards of other images", _ANOTHER)
        return True
    strangers = [] if (output / JOURNAL_NAME).is_file() else sorted(output.glob("*.tar"))
    if strangers:
        more = f"and {len(strangers) - 1} more tar files that are not known here"
        raise UserError(f"{output} holds {strangers[0].name} {more}", "give an empty --output")
    return False


class Journal:
    """The shards of a plan in a folder, the finished ones in lines of json.

    The first line has the plan's sha256, each further one the index entry of a finished shard.
    """

    def __init__(self, output: Path, plan: Plan, file: TextIO):
        """Keep the shards that an earlier run with this plan finished and that still exist.

        Raises:
            UserError: the earlier run had another plan.
        """
        self.output, self.plan, self._file = output, plan, file
        self.entries: dict[str, dict] = {}  # by the name of the file
        file.seek(0)
        text = file.read()
        text = text[: text.rfind("\n") + 1]  # a kill may have cut the last line
        file.truncate(len(text.encode()))
        lines = [_parsed(output / JOURNAL_NAME, line) for line in text.splitlines()]
        if not lines:
            self._write({"plan": plan.sha256})
        elif lines[0].get("plan") != plan.sha256:
            raise UserError(f"{output} holds unfinished shards of other images", _ANOTHER)
        for entry in lines[1:]:
            path = output / str(entry.get("file"))
            if path.is_file() and path.stat().st_size == entry.get("bytes"):
                self.entries[entry["file"]] = entry

    def missing(self) -> list[PlannedShard]:
        """The shards that are still to be written."""
        return [shard for shard in self.plan.shards if shard.file not in self.entries]

    def add(self, entry: dict) -> None:
        self.entries[entry["file"]] = entry
        self._write(entry)

    def _write(self, line: dict) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Write the index, which makes the set complete, and remove the journal."""
        splits: dict[str, dict] = {}
        for shard in self.plan.shards:
            split = splits.setdefault(shard.split, {"samples": 0, "shards": []})
            split["samples"] += len(shard.images)
            split["shards"].append(self.entries[shard.file])
        plan = self.plan
        index = {"format": FORMAT, "version": VERSION, "plan": plan.sha256, "seed": plan.seed}
        index |= {"classes": plan.classes, "splits": splits}
        write_text(self.output / INDEX_NAME, json.dumps(index, indent=1))
        (self.output / JOURNAL_NAME).unlink()


def _parsed(path: Path, text: str | bytes) -> dict:
    """The json object in `text`, of the file `path`; raises UserError if it is none."""
    try:
        parsed = parse_json(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise UserError(f"{path} is damaged", "give another --output, or remove its folder")
    return parsed


@contextlib.contextmanager
def open_journal(output: Path, plan: Plan) -> Iterator[Journal]:
    """The journal of `output` for this process alone; makes the folder if it does not exist.

    Raises:
        UserError: another process writes to the folder, or an earlier one had another plan.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output / _LOCK_NAME
    try:
        lock = FileLock(path).acquire(blocking=False)
    except Timeout as error:
        raise UserError(f"Another make-shards is writing to {output}") from error
    with lock, open(output / JOURNAL_NAME, "a+", encoding="utf-8") as file:
        try:
            yield Journal(output, plan, file)
        finally:
            path.unlink()


def require_space(journal: Journal) -> None:
    """Raise UserError if the disk of the output has no room for the shards that are missing."""
    needed = sum(shard.bytes for shard in journal.missing())
    free = shutil.disk_usage(journal.output).free
    if needed > free:
        raise UserError(
            f"The shards take {needed / 1e9:.2f} GB and {journal.output} has {free / 1e9:.2f} GB "
            "free",
            "make room or give another --output",
        )


def write_shards(journal: Journal, workers: int, done: Callable[[int], object]) -> None:
    """Write the shards that the journal lacks, several at a time.

    Args:
        done: called with the bytes of each shard when it is written.

    Raises:
        FileNotFoundError, UserError: an image cannot be read, or has changed since it was listed.
    """
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(write_shard, journal.output, x): x for x in journal.missing()}
        try:
            for future in as_completed(futures):
                journal.add(future.result())
                done(futures[future].bytes)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def write_shard(output: Path, shard: PlannedShard) -> dict:
    """Write one shard and return its entry in the index; the file gets its name when complete."""
    partial = output / f".{shard.file}.partial"
    with open(partial, "wb") as file:
        hashing = _Hashing(file)
        # No user, group or time: the same images give the same bytes.
        with TarWriter(hashing, user="", group="", encoder=False, mtime=0) as archive:
            for image in shard.images:
                archive.write(_sample(image))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(output / shard.file)
    entry = {"file": shard.file, "samples": len(shard.images), "bytes": hashing.count}
    return {**entry, "sha256": hashing.sha256.hexdigest()}


def _sample(image: dict) -> dict:
    path = Path(image["file_name"])
    data = read_file(str(path))
    if len(data) != image["size"]:
        raise UserError(
            f"Image {path} has {len(data)} bytes, {image['size']} when it was listed: a program is "
            "writing to the folder",
            "run the command again when it has ended",
        )
    suffix = path.suffix[1:].lower()
    return {"__key__": f"{image['image_id']:09d}", suffix: data, "json": record_of(image)}


class _Hashing:
    """Writes to a file; counts and hashes the bytes."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.count, self.sha256 = 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.count += len(data)
        self.sha256.update(data)
        return self._file.write(data)
