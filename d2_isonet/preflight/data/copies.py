"""Finds copies of images: within a data set, and between training and validation."""

import base64
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from d2_isonet.preflight.findings import Finding, found

from .image_scan import LOOK_SIDE, ImageFile, look_at, look_at_all

MOST_COMPARED = 20_000  # images of all sets that are read before a run to be compared by content
# Correlation of two looks. Re-encoded and resized photographs have 0.98 and more, other images up
# to 0.95 (documents of one layout). Crops, mirrored and rotated copies are not found.
_ALIKE = 0.97
_CONTRAST = 30.0  # norm of the differences, below which noise decides
_BLOCK = 256  # rows of the matrix of correlations


def copy_findings(train: Iterable[str], val: Iterable[str], number: int = -1) -> Iterator[Finding]:
    """The images that both sets have, and the copies within each; `train` or `val` may be empty.

    Args:
        train, val: paths.
        number: of images of each set that are read. Unless all are (-1), only equal paths count,
            and nothing if it is 0.
    """
    if not number:
        return
    sets = {"DATASETS.TRAIN": [*dict.fromkeys(train)], "DATASETS.TEST": [*dict.fromkeys(val)]}
    paths = [*dict.fromkeys(path for one in sets.values() for path in one)]
    files = looks_at(paths) if number < 0 else {}
    contents = {path: files[path].digest or path if path in files else path for path in paths}
    for where, one in sets.items():
        copies = [(path, twin) for path, twin in _twins(one, one, contents) if path != twin]
        what = f"of {len(one)} images that are a copy of another one of the set"
        yield from found("warning", where, _pairs(copies, "as"), what, "keep one of each")
    training, validation = sets.values()
    twins = [*_twins(validation, training, contents)]
    remedy = "the accuracy on them says nothing of new images: take them out of one of the two"
    what = f"of {len(validation)} images that are trained on as well"
    yield from found("warning", "DATASETS.TEST", _pairs(twins, "as"), what, remedy)
    if files and len(paths) <= MOST_COMPARED:
        looks = {path: file.look for path, file in files.items() if file.look}
        others = [x for x in validation if x in looks and x not in dict(twins)]
        alike = _alike(others, [x for x in training if x in looks], looks)
        what = f"of {len(validation)} images that look like one that is trained on"
        remedy += ", if they are re-encoded or resized copies, or frames of one scene"
        yield from found("warning", "DATASETS.TEST", _pairs(alike, "like"), what, remedy)


def looks_at(paths: Iterable[str]) -> dict[str, ImageFile]:
    """Each file with its look, which a cache of before does not have."""
    files = look_at_all(paths, "copies")
    old = [x for x, f in files.items() if not (f.error or f.look or f.has_deep_pixels)]
    return files | {path: look_at(path) for path in old}


def _pairs(pairs: Iterable[tuple[str, str]], word: str) -> list[str]:
    return [f"{one} ({word} {other})" if one != other else one for one, other in pairs]


def _twins(paths: Iterable[str], others: Iterable[str], contents: dict) -> Iterator[tuple]:
    """Each path with the first of `others` that has its content."""
    first: dict[str, str] = {}
    for path in others:
        first.setdefault(contents[path], path)
    yield from ((path, first[contents[path]]) for path in paths if contents[path] in first)


def _alike(paths: Sequence[str], others: Sequence[str], looks: dict) -> Iterator[tuple]:
    """Each path with the one of `others` that looks most like it, if it looks like it at all."""
    if not paths or not others:
        return
    ours, theirs = (_differences([looks[x] for x in names]) for names in (paths, others))
    for first in range(0, len(paths), _BLOCK):
        correlation = ours[first : first + _BLOCK] @ theirs.T
        for path, row in zip(paths[first:], correlation, strict=False):
            if row.max() >= _ALIKE:
                yield path, others[int(row.argmax())]


def _differences(looks: Sequence[str]) -> np.ndarray:
    """The differences between neighbours of each look (N, 2 S (S - 1)), of norm 1, or 0 if flat."""
    data = b"".join(map(base64.b85decode, looks))
    pixels = np.frombuffer(data, np.uint8).reshape(-1, LOOK_SIDE, LOOK_SIDE).astype(np.float32)
    parts = [np.diff(pixels, axis=axis).reshape(len(looks), -1) for axis in (1, 2)]
    differences = np.hstack(parts)
    norm = np.linalg.norm(differences, axis=1, keepdims=True)
    return np.where(norm < _CONTRAST, 0, differences / norm.clip(1e-9))
