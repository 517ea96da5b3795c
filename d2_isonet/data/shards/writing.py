"""Writing tar shards: image bytes untouched, each shard whole or not there."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import BinaryIO

from webdataset import TarWriter

from d2_isonet.utils.messages import UserError

from .index import FORMAT, INDEX_NAME, JOURNAL_NAME, VERSION
from .plan import Plan, PlannedShard, record_of

_ANOTHER = (
    "give the folder, sizes and seed that they were made with, or another --output (or remove it)"
)


def is_finished(output: Path, plan: Plan) -> bool:
    """Whether `output` holds the index of this plan's shards.

    Raises:
        UserError: it holds that of others, or tar files of unknown origin.
    """
    index = output / INDEX_NAME
    if index.is_file():
        if _parsed(index, index.read_text()).get("plan") != plan.sha256:
            raise UserError(f"{output} holds the finished shards of other images", f"{_ANOTHER}")
        return True
    strangers = [] if (output / JOURNAL_NAME).is_file() else sorted(output.glob("*.tar"))
    if strangers:
        raise UserError(
            f"{output} holds {strangers[0].name} and {len(strangers) - 1} more tar files that are "
            "not known here",
            "give an empty --output",
        )
    return False


class Journal:
    """Lines of json: the plan's sha256, then the index entry of each finished shard."""

    def __init__(self, output: Path, file, entries: dict[str, dict]):
        self.output, self._file, self.entries = output, file, entries

    def add(self, entry: dict) -> None:
        self.entries[entry["file"]] = entry
        self._write(entry)

    def _write(self, line: dict) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def start(self, plan: Plan) -> None:
        """Take over what an earlier run with this plan has finished and is still there.

        Raises:
            UserError: that run had another plan.
        """
        self._file.seek(0)
        text = self._file.read()
        text = text[: text.rfind("\n") + 1]  # a kill may have cut the last line
        self._file.truncate(len(text.encode()))
        lines = [_parsed(self.output / JOURNAL_NAME, line) for line in text.splitlines()]
        if not lines:
            self._write({"plan": plan.sha256})
            return
        if lines[0].get("plan") != plan.sha256:
            raise UserError(f"{self.output} holds unfinished shards of other images", f"{_ANOTHER}")
        for entry in lines[1:]:
            path = self.output / entry["file"]
            if path.is_file() and path.stat().st_size == entry["bytes"]:
                self.entries[entry["file"]] = entry

    def finish(self, plan: Plan) -> None:
        """Write the index, which makes the set complete, and remove the journal."""
        splits: dict[str, dict] = {}
        for shard in plan.shards:
            split = splits.setdefault(shard.split, {"samples": 0, "shards": []})
            split["samples"] += len(shard.images)
            split["shards"].append(self.entries[shard.file])
        index = {"format": FORMAT, "version": VERSION, "plan": plan.sha256, "seed": plan.seed}
        index |= {"classes": plan.classes, "splits": splits}
        partial = self.output / f"{INDEX_NAME}.partial"
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(index, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.output / INDEX_NAME)
        (self.output / JOURNAL_NAME).unlink()


def _parsed(path: Path, text: str) -> dict:
    """
    Raises:
        UserError: `text`, of the file `path`, is not the json of an object.
    """
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise UserError(f"{path} is damaged", "give another --output, or remove its folder")
    return parsed


@contextlib.contextmanager
def open_journal(output: Path) -> Iterator[Journal]:
    """The journal of `output`, which is made, for this process alone.

    Raises:
        UserError: another process has it open.
    """
    output.mkdir(parents=True, exist_ok=True)
    with open(output / JOURNAL_NAME, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another make_shards.py is writing to {output}") from error
        yield Journal(output, file, {})


def write_shards(
    output: Path, plan: Plan, journal: Journal, workers: int, done: Callable[[int], object]
) -> None:
    """Write the shards that the journal has not, several at a time; `done` is told their bytes.

    Raises:
        FileNotFoundError, UserError: an image cannot be read, or has changed since it was listed.
    """
    missing = [shard for shard in plan.shards if shard.file not in journal.entries]
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(write_shard, output, shard): shard for shard in missing}
        try:
            for future in as_completed(futures):
                journal.add(future.result())
                done(futures[future].bytes)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def require_space(output: Path, plan: Plan, journal: Journal) -> None:
    """
    Raises:
        UserError: the file system of `output` has not the room for the shards yet to be written.
    """
    needed = sum(shard.bytes for shard in plan.shards if shard.file not in journal.entries)
    free = shutil.disk_usage(output).free
    if needed > free:
        raise UserError(
            f"The shards take {needed / 1e9:.2f} GB and {output} has {free / 1e9:.2f} GB free",
            "make room or give another --output",
        )


def write_shard(output: Path, shard: PlannedShard) -> dict:
    """Write one shard and return its entry in the index; under its name it is always complete."""
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
    return {
        "file": shard.file,
        "samples": len(shard.images),
        "bytes": hashing.count,
        "sha256": hashing.sha256.hexdigest(),
    }


def _sample(image: dict) -> dict:
    path = Path(image["file_name"])
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Image {path} does not exist (removed since it was listed); restore it or start anew "
            "with another --output"
        ) from error
    except OSError as error:
        raise UserError(f"Image {path} cannot be read ({error})", "replace the file") from error
    if len(data) != image["size"]:
        raise UserError(
            f"Image {path} has {len(data)} bytes, {image['size']} when it was listed: something "
            "is writing to the folder",
            "run the command again when it has ended",
        )
    suffix = path.suffix[1:].lower()
    return {"__key__": f"{image['image_id']:09d}", suffix: data, "json": record_of(image)}


class _Hashing:
    """A file to write to, with the count and sha256 of what was written."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.count, self.sha256 = 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.count += len(data)
        self.sha256.update(data)
        return self._file.write(data)
