"""Writing tar shards: image bytes untouched, each shard whole or not there."""

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import BinaryIO

from webdataset import TarWriter

from sharding.journal import Journal
from sharding.plan import Plan, PlannedShard, record_of


def write_shards(
    output: Path, plan: Plan, journal: Journal, workers: int, done: Callable[[int], None]
) -> None:
    """Write the shards that the journal has not, several at a time; `done` is told their bytes.

    Raises:
        FileNotFoundError, ValueError: an image cannot be read, or has changed since it was listed.
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
        ValueError: the file system of `output` has not the room for the shards yet to be written.
    """
    needed = sum(shard.bytes for shard in plan.shards if shard.file not in journal.entries)
    free = shutil.disk_usage(output).free
    if needed > free:
        raise ValueError(
            f"The shards take {needed / 1e9:.2f} GB and {output} has {free / 1e9:.2f} GB free; "
            "make room or give another --output"
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
        raise ValueError(f"Image {path} cannot be read ({error}); replace the file") from error
    if len(data) != image["size"]:
        raise ValueError(
            f"Image {path} has {len(data)} bytes, {image['size']} when it was listed: something "
            "is writing to the folder; run the command again when it has ended"
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
