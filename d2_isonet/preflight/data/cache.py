"""Caches the findings on a file between runs until the file changes."""

import json
import logging
import os
import sqlite3
from collections.abc import Iterable

from iopath.common.file_io import get_cache_dir

logger = logging.getLogger(__name__)
FORMAT = 1  # raise it if the meaning of a cached value changes


def file_stamp(path: str) -> str | None:
    """Size and time of change of a file; None if there is no such local file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a path with a null character
        return None
    return f"{status.st_size}:{status.st_mtime_ns}"


def _plain(key: str) -> str:
    """The key as valid UTF-8, which file names need not be."""
    return key.encode("utf-8", "backslashreplace").decode()


class PreflightCache:
    """A table (key, stamp) -> JSON value in detectron2's cache folder, $FVCORE_CACHE/d2_isonet.

    If that cannot be written, it logs a warning and nothing is kept; neither is a value without
    stamp.
    """

    def __init__(self):
        folder = os.path.join(get_cache_dir(), "d2_isonet")
        try:
            os.makedirs(folder, exist_ok=True)
            self._open(os.path.join(folder, f"preflight{FORMAT}.sqlite"))
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def _open(self, file: str) -> None:
        self._connection = sqlite3.connect(file, timeout=10)
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, stamp TEXT, value TEXT)"
        )

    def _give_up(self, error: Exception) -> None:
        logger.warning(f"The findings of this check are not kept for the next one: {error}")
        self._open(":memory:")

    def get(self, key: str, stamp: str | None):
        """The value of the key if it was kept with this stamp, else None."""
        try:
            query = "SELECT value FROM kept WHERE key = ? AND stamp = ?"
            row = self._connection.execute(query, (_plain(key), stamp)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            row = None
        return row and json.loads(row[0])

    def put(self, rows: Iterable[tuple[str, str | None, object]]) -> None:
        """Keep rows of (key, stamp, value); a row replaces an older one of the same key."""
        kept = [(_plain(key), stamp, json.dumps(value)) for key, stamp, value in rows if stamp]
        try:
            with self._connection:
                self._connection.executemany("REPLACE INTO kept VALUES (?, ?, ?)", kept)
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        self._connection.close()
