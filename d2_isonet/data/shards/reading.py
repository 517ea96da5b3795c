"""Reads the images of one tar shard as bytes with labels; validates every byte, executes none."""

import contextlib
import io
import logging
import tarfile
import time
from collections.abc import Collection, Iterator
from typing import Any

from d2_isonet.utils.files import parse_json
from d2_isonet.utils.messages import UserError

from .index import Shard, is_url
from .source import ShardUnavailable, Source, open_source

logger = logging.getLogger(__name__)
_BLOCK = 1 << 20
_WAITS = (1, 5, 25)  # seconds before a URL is tried again
_REMEDY = "copy it again, or make the shards again with d2-isonet make-shards"


def read_shard(shard: Shard, num_classes: int, wanted: Collection[int]) -> dict[int, dict]:
    """{number in the tar file: {"file_name", "image_id", "label", "data" (bytes)}} of `wanted`.

    It reads the whole file and compares it with the size and sha256 in the index before it returns
    anything. A URL that fails is tried four times.

    Raises:
        FileNotFoundError: the file does not exist.
        UserError: it cannot be read, differs from the index, or is no shard of this project.
    """
    for wait in _WAITS if is_url(shard.url) else ():
        try:
            return _read_once(shard, num_classes, wanted)
        except ShardUnavailable as error:
            logger.warning(f"{error}; trying again in {wait} s")
            time.sleep(wait)
    return _read_once(shard, num_classes, wanted)


def _read_once(shard: Shard, num_classes: int, wanted: Collection[int]) -> dict[int, dict]:
    samples, count, error = {}, 0, None
    with open_source(shard.url) as source:
        stream: io.BufferedReader = io.BufferedReader(source, _BLOCK)
        try:
            for sample in _samples(stream, shard):
                if count in wanted:
                    samples[count] = _checked(sample, shard, num_classes)
                count += 1
        except (tarfile.TarError, ValueError, EOFError) as problem:
            error = problem
        while source.count <= shard.bytes and stream.read(_BLOCK):  # what follows the archive
            pass
    _compare(source, shard)
    if error is not None:
        raise UserError(f"Shard {shard.url} cannot be used: {error.args[0]}", _REMEDY) from error
    if count != shard.samples:
        what = f"Shard {shard.url} has {count} images and not {shard.samples} as the index says"
        raise UserError(what, "make the shards again with d2-isonet make-shards")
    return samples


def _compare(source: Source, shard: Shard) -> None:
    problem = ""
    if source.count != shard.bytes:
        problem = f"has {source.count} bytes and not {shard.bytes} as the index says"
    elif source.sha256.hexdigest() != shard.sha256:
        problem = "does not have the sha256 of the index: its content has changed"
    if problem:
        raise ShardUnavailable(f"Shard {shard.url} {problem}", _REMEDY)


def _samples(stream: io.BufferedReader, shard: Shard) -> Iterator[dict[str, Any]]:
    """WebDataset's samples, {"__key__", suffix: bytes, ...}, in the order of the tar file."""
    from webdataset.tariterators import group_by_keys

    # Not its tar_file_iterator, which unpacks gzip, so that a small file could fill the memory.
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        yield from group_by_keys(_members(archive, shard))


def _members(archive: tarfile.TarFile, shard: Shard) -> Iterator[dict[str, Any]]:
    from webdataset.tariterators import base_plus_ext

    for member in archive:
        is_plain = member.isreg() and not member.issparse() and member.size <= shard.bytes
        if not is_plain or base_plus_ext(member.name)[0] is None:  # WebDataset skips these
            raise UserError(f"its member {member.name!r} is no plain file of a sample")
        content = archive.extractfile(member)
        assert content is not None, "a regular file has content"
        archive.members = []  # type: ignore[attr-defined]  # else it keeps every header
        yield {"fname": member.name, "data": content.read(), "__url__": shard.url}


def _checked(sample: dict[str, Any], shard: Shard, num_classes: int) -> dict:
    """The sample as a dict like those of `load_image_folder`, with its "data"."""
    key = sample["__key__"]
    images = [name for name in sample if name != "json" and not name.startswith("__")]
    if len(images) != 1 or "json" not in sample:
        raise UserError(f"sample {key!r} is not an image and its json")
    record = None
    with contextlib.suppress(ValueError):  # reported below
        record = parse_json(sample["json"])
    kinds = {"file": str, "image_id": int, "label": int}
    if not isinstance(record, dict) or {k: type(v) for k, v in record.items()} != kinds:
        raise UserError(f"{key}.json does not give file, image_id and label")
    if not 0 <= record["label"] < num_classes:
        raise UserError(f"{key}.json has label {record['label']} of {num_classes} classes")
    name = f"{shard.url}/{record.pop('file')}"
    return {"file_name": name, **record, "data": sample[images[0]]}
