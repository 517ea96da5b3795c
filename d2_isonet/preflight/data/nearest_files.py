"""Finds the files that paths mean which were written on another system or for another folder."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

_MOST_FILES = 1_000_000  # of a folder that are looked through


class NearestFiles:
    """The files below a folder, found by names that differ in how they are written.

    That is in capitals, accents (NFC, NFD), %20, backslashes, extra or missing folders, a drive or
    an address, or in the suffix alone.
    """

    def __init__(self, root: str):
        self._files: dict[str, list[str]] = defaultdict(list)
        for path in _files_below(root):
            name = _parts(path)[-1]
            self._files[name].append(path)
            self._files[os.path.splitext(name)[0]].append(path)

    def find(self, path: str) -> str | None:
        """The one file with the name of `path`; of several, the one with most of its folders."""
        parts = _parts(path)
        names = (parts[-1], os.path.splitext(parts[-1])[0])
        files = next((self._files[name] for name in names if name in self._files), [])
        common = [os.path.commonprefix([parts[::-1], _parts(x)[::-1]]) for x in files]
        best = [x for x, c in zip(files, common, strict=True) if len(c) == max(map(len, common))]
        return best[0] if len(best) == 1 else None


def _files_below(root: str) -> Iterator[str]:
    left = _MOST_FILES
    for folder, _, names in os.walk(root):
        yield from (os.path.join(folder, name) for name in names[:left])
        left -= len(names)
        if left <= 0:
            return


def _parts(path: str) -> list[str]:
    """The folders and the name of a path or an address, in one way of writing."""
    path = urlsplit(path).path if "://" in path else path
    text = unicodedata.normalize("NFC", unquote(path)).casefold().replace("\\", "/")
    return [part for part in text.split("/") if part not in ("", ".")] or [""]
