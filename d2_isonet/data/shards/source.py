"""Reads and hashes the bytes of a path or URL through WebDataset, and explains failures."""

import contextlib
import hashlib
import io
import os
import select
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from d2_isonet.utils.command_line import require_packages
from d2_isonet.utils.files import why_not_regular
from d2_isonet.utils.messages import MissingFileError, UserError

if TYPE_CHECKING:
    from typing_extensions import Buffer
_SILENCE = 60.0  # seconds without a byte after which a URL counts as dead
_BLOCK = 1 << 20
_INDEX_LIMIT = 1 << 25  # bytes; the index of two hundred thousand shards


class ShardUnavailable(UserError):
    """The error of an incomplete read of a shard or index; another attempt may succeed."""


class Source(io.RawIOBase):
    """The raw bytes of an opened stream; `count` and `sha256` describe the bytes read so far."""

    def __init__(self, stream: io.BufferedIOBase):
        self._stream = stream
        self._process = getattr(stream, "proc", None)  # curl, gsutil, the command of pipe:
        self.count, self.sha256 = 0, hashlib.sha256()
        self.is_silent = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer") -> int:
        view = memoryview(buffer)
        data = self._read(len(view))
        view[: len(data)] = data
        self.count += len(data)
        self.sha256.update(data)
        return len(data)

    def _read(self, size: int) -> bytes:
        if self._process is None:
            return self._stream.read(size)
        pipe, arrivals = self._process.stdout.fileno(), select.poll()
        arrivals.register(pipe, select.POLLIN)
        if not arrivals.poll(_SILENCE * 1000):
            self.is_silent = True
            self._process.kill()
            raise TimeoutError  # its children may keep the pipe open
        return os.read(pipe, size)

    def why_it_failed(self, error: OSError) -> str:
        """The command and its exit code, or the message of the operating system."""
        if self.is_silent:
            return f"nothing arrived for {_SILENCE:.0f} s"
        if self._process is None:
            return str(error)
        command = self._process.args
        command = command if isinstance(command, str) else shlex.join(command)
        return f"exit code {self._process.poll()} of: {command}"


@contextlib.contextmanager
def open_source(url: str) -> Iterator[Source]:
    """The bytes of `url`; for some schemes WebDataset starts a command that delivers them.

    Raises:
        FileNotFoundError: the file does not exist.
        ShardUnavailable: the command is missing, fails, or is silent for a minute.
        UserError: WebDataset is not installed or does not know the scheme.
    """
    stream = _open(url)
    source = Source(stream)
    try:
        with contextlib.closing(stream):  # the failure of a command may appear only here
            yield source
    except OSError as error:
        raise ShardUnavailable(f"{url} cannot be read ({source.why_it_failed(error)})") from error


def _open(url: str) -> io.BufferedIOBase:
    require_packages("webdataset", needed_by=f"{url}: a set of image shards")
    from webdataset.gopen import gopen, gopen_schemes

    scheme = url.partition(":")[0] if ":" in url and not url.startswith("/") else ""
    if scheme not in ("", "file", *gopen_schemes):
        known = ", ".join(sorted(set(gopen_schemes) - {"__default__"}))
        raise UserError(
            f"{url}: WebDataset reads no {scheme}: URLs",
            f"it reads {known}. For others, give a command, as in --data-root "
            "'pipe:aws s3 cp s3://BUCKET/FOLDER/{} -'",
        )
    try:
        is_file = scheme in ("", "file")
        if is_file and (problem := why_not_regular(url.removeprefix("file://"))):
            raise UserError(f"{url} cannot be read: {problem}", "copy the shards again")
        return gopen(url, "rb")
    except FileNotFoundError as error:
        if error.filename != url and scheme not in ("", "file"):
            raise ShardUnavailable(
                f"{url} cannot be read: there is no program {error.filename!r}", "install it"
            ) from error
        raise MissingFileError(f"There is no file {url}") from error
    except OSError as error:
        raise ShardUnavailable(f"{url} cannot be read ({error})") from error


def read_all(url: str) -> bytes:
    """The content of an index.

    Raises:
        UserError: it has more than 256 MB.
        FileNotFoundError, UserError: what `open_source` raises.
    """
    with open_source(url) as source:
        content = io.BufferedReader(source, _BLOCK).read(_INDEX_LIMIT + 1)
    if len(content) > _INDEX_LIMIT:
        raise UserError(f"{url} has more than {_INDEX_LIMIT >> 20} MB: it is no index of shards")
    return content
