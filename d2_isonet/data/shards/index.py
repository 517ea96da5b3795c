"""The index of a set of image shards: the tar files, their contents and places."""

import os
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from d2_isonet.utils.files import parse_json, why_not_regular
from d2_isonet.utils.messages import MissingFileError, UserError

from .source import read_all

INDEX_NAME = "index.json"
JOURNAL_NAME = "shards.partial.jsonl"  # of an unfinished set
FORMAT, VERSION = "d2_isonet image shards", 1
_MOST_SAMPLES = 20_000_000  # of a split, whose order is held in memory
_LEAST_BYTES = 2048  # of a sample: an image and its json in blocks of 512 bytes, and their headers
_REMEDY = "copy the whole set again, or make it again with d2-isonet make-shards"
# A plain name: the index may come from anybody, and WebDataset executes what follows "pipe:".
_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.tar")


class Shard(NamedTuple):
    """A tar file: its place, number of images, size in bytes and sha256."""

    url: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardedImages:
    """One split of an image data set in tar shards; its length is the number of images."""

    name: str
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]

    def __len__(self) -> int:
        return sum(shard.samples for shard in self.shards)


def is_url(root: str) -> bool:
    """Whether WebDataset, not the file system, opens it: SCHEME://..., or pipe:COMMAND."""
    return "://" in root or root.startswith("pipe:")


def is_shard_root(root: str) -> bool:
    """Whether `root` is a URL or a folder with the index of shards.

    Raises:
        FileNotFoundError: it is a folder with shards but without their index.
    """
    if is_url(root) or os.path.exists(os.path.join(root, INDEX_NAME)):
        return True
    if os.path.isfile(os.path.join(root, JOURNAL_NAME)):
        what = f"{root} has no {INDEX_NAME}: d2-isonet make-shards has not finished it"
        raise MissingFileError(what, "run the same command again to continue")
    if os.path.isdir(root) and not os.path.isdir(os.path.join(root, "train")):
        number = sum(name.endswith(".tar") for name in os.listdir(root))
        if number:
            raise MissingFileError(f"{root} has {number} tar files and no {INDEX_NAME}", _REMEDY)
    return False


def url_of(root: str, name: str) -> str:
    """The place of file `name` of the set at `root`; the name replaces "{}" in a pipe: command."""
    if root.startswith("pipe:") and "{}" in root:
        return root.replace("{}", name)
    return f"{root.rstrip('/')}/{name}"


def load_shard_index(root: str) -> dict[str, ShardedImages]:
    """The splits of the set at `root` (a folder or URL), by name.

    Raises:
        FileNotFoundError: the index or a shard in a folder is missing, or the URL cannot be read.
        UserError: the index is damaged or of another version, or the size of a shard in a folder
            differs from the index (truncated).
    """
    root = root if is_url(root) else os.path.abspath(os.path.expanduser(root))
    url = url_of(root, INDEX_NAME)
    content = read_all(url)
    try:
        index = parse_json(content)
    except ValueError as error:
        raise UserError(f"{url} is no json ({str(error).splitlines()[0]})", _REMEDY) from error
    splits = _Checker(url).splits(root, index)
    if not is_url(root):
        _check_files([shard for images in splits.values() for shard in images.shards])
    return splits


def _check_files(shards: list[Shard]) -> None:
    missing = [shard.url for shard in shards if not os.path.exists(shard.url)]
    if missing:
        what = f"{len(missing)} of {len(shards)} shards are missing, the first is {missing[0]}"
        raise MissingFileError(what, _REMEDY)
    for shard in shards:
        if problem := why_not_regular(shard.url):
            raise UserError(f"Shard {shard.url} cannot be read: {problem}", _REMEDY)
        size = os.path.getsize(shard.url)
        if size != shard.bytes:
            what = f"Shard {shard.url} has {size} bytes and not {shard.bytes} as the index says"
            raise UserError(what, "copy it again")


class _Checker:
    """Validates the parsed index; every error names the file, the place in it and the value."""

    def __init__(self, url: str):
        self.url = url

    def splits(self, root: str, index: Any) -> dict[str, ShardedImages]:
        if not isinstance(index, dict) or index.get("format") != FORMAT:
            raise UserError(f"{self.url} is no index of image shards (no format {FORMAT!r})")
        if index.get("version") != VERSION:
            raise UserError(
                f"{self.url} has version {index.get('version')!r}, this d2_isonet reads {VERSION}",
                "install the d2_isonet that wrote it, or make the shards again",
            )
        classes = self._get(index, "classes", "", list)
        self._need(all(isinstance(name, str) for name in classes), "classes", classes)
        self._need(len(set(classes)) == len(classes), "classes", "a name given twice")
        splits = {}
        for name, content in self._get(index, "splits", "", dict).items():
            shards = self._shards(root, content, f"splits.{name}")
            splits[name] = ShardedImages(url_of(root, name), tuple(classes), shards)
        return splits

    def _shards(self, root: str, split: Any, where: str) -> tuple[Shard, ...]:
        entries = enumerate(self._get(split, "shards", where, list))
        shards = tuple(self._shard(root, entry, f"{where}.shards[{i}]") for i, entry in entries)
        samples = self._get(split, "samples", where, int)
        self._need(samples <= _MOST_SAMPLES, f"{where}.samples", samples)
        counted = sum(shard.samples for shard in shards)
        self._need(samples == counted, f"{where}.samples", f"{samples}, its shards hold {counted}")
        urls = {shard.url for shard in shards}
        self._need(len(urls) == len(shards), f"{where}.shards", "a file named twice")
        return shards

    def _shard(self, root: str, entry: Any, where: str) -> Shard:
        name, sha256 = (self._get(entry, key, where, str) for key in ("file", "sha256"))
        samples, size = (self._get(entry, key, where, int) for key in ("samples", "bytes"))
        self._need(_SHARD_NAME.fullmatch(name), f"{where}.file", name)
        self._need(samples > 0, f"{where}.samples", samples)
        is_possible = samples * _LEAST_BYTES <= size
        self._need(is_possible, f"{where}.samples", f"{samples} in {size} bytes")
        self._need(re.fullmatch("[0-9a-f]{64}", sha256), f"{where}.sha256", sha256)
        return Shard(url_of(root, name), samples, size, sha256)

    def _get(self, node: Any, key: str, where: str, kind: type) -> Any:
        """node[key] of that kind; neither a bool nor empty."""
        self._need(isinstance(node, dict), where, node)
        value = node.get(key)
        is_right = isinstance(value, kind) and not isinstance(value, bool) and value
        self._need(is_right, f"{where}.{key}".lstrip("."), value)
        return value

    def _need(self, is_right: object, where: str, value: Any) -> None:
        if not is_right:
            raise UserError(f"{self.url} is damaged at {where}: {str(value)[:60]}", _REMEDY)
