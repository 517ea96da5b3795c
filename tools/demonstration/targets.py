"""What is written where, and whether it may be."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from d2_isonet.utils.messages import some

from .sources import Found, Source

IMAGES, RESULTS = "images.json", "results.json"
_AS_THEY_ARE = {
    "image": (".jpg", ".jpeg", ".png"),
    "video": (".mp4",),
    "webcam": (),
}


def target_of(source: Source) -> str:
    """The name of a source's annotated copy in the output folder.

    It is the source's own, with .png or .mp4 behind it where OpenCV writes no such files (well).
    """
    if source.name.lower().endswith(_AS_THEY_ARE[source.kind]):
        return source.name
    return source.name + (".png" if source.kind == "image" else ".mp4")


def check_targets(found: Found, folder: Path, overwrite: bool) -> None:
    """Raise ValueError where writing would destroy something, or cannot be done.

    Args:
        overwrite: the copies of an earlier demo may be replaced; inputs never are.
    """
    folder = Path(os.path.abspath(folder.expanduser()))
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise ValueError(f"--output: {there} is no folder; name another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"--output: {there} cannot be written to; name another folder")
    names = [IMAGES, RESULTS, *map(target_of, found.sources)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"--input: two files would both be written to {some(twice)}")
    _check_inputs(found, folder, names)
    old = [name for name in names if os.path.lexists(folder / name)]
    if old and not overwrite:
        raise ValueError(
            f"--output: {folder} already has {len(old)} of the files that would be written: "
            f"{some(old)}; name another folder, or add --overwrite"
        )


def _check_inputs(found: Found, folder: Path, names: Sequence[str]) -> None:
    """Refuse to write over an input, or where copies would be taken for inputs the next time."""
    real = Path(os.path.realpath(folder))
    for given in found.folders:
        if real.is_relative_to(os.path.realpath(given)):
            raise ValueError(
                f"--output: {folder} lies in the --input folder {given}, and copies would be taken "
                "for images the next time; name a folder outside"
            )
    inputs = {os.path.realpath(source.path) for source in found.sources}
    lost = [name for name in names if os.path.realpath(folder / name) in inputs]
    if lost:
        raise ValueError(
            f"--output: {folder} is where the input lies, and {some(lost)} would be overwritten; "
            "name another folder"
        )
