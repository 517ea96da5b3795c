"""The images, videos or webcam that --input names."""

import glob
import itertools
import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

from torchvision.datasets.folder import IMG_EXTENSIONS

from d2_isonet.data.image_folder import list_images, walk
from d2_isonet.utils.messages import MissingFileError, UserError

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".gif",
)  # fmt: skip


class Source(NamedTuple):
    """A file or a webcam."""

    kind: Literal["image", "video", "webcam"]
    path: str  # of the file, or the number of a webcam
    name: str  # COCO's file_name: path below the folder that contains all of them, with "/"


class Found(NamedTuple):
    """Each file once, the folders that --input names, and their files that are no pictures."""

    sources: list[Source]
    folders: list[str]
    others: list[str]


def find_sources(words: list[str]) -> Found:
    """The files, or the webcam, that the words of --input name.

    Raises:
        FileNotFoundError: there is no such file, or no file that matches a pattern.
        UserError: a folder has neither images nor videos, a webcam is not alone, or a path is a
            device.
    """
    webcams = [x for x in words if re.fullmatch(r"webcam\d*", x) and not os.path.exists(x)]
    if webcams and len(words) > 1:
        raise UserError(f"--input: {webcams[0]} must be given alone")
    if webcams:
        number = webcams[0].removeprefix("webcam") or "0"
        return Found([Source("webcam", number, f"webcam{number}")], [], [])
    roots, found, others = zip(*map(_find, words), strict=True)
    files: dict[str, str] = {}  # real path -> path
    for path in itertools.chain(*found):
        files.setdefault(os.path.realpath(path), path)
    sources = [_source(path, os.path.commonpath(roots)) for path in files.values()]
    folders = [os.path.abspath(x) for x in map(os.path.expanduser, words) if os.path.isdir(x)]
    return Found(sources, folders, [*itertools.chain(*others)])


def _find(word: str) -> tuple[str, list[str], list[str]]:
    """The folder that names start from, the files, and the files left out."""
    path = os.path.abspath(os.path.expanduser(word))
    if os.path.isdir(path):
        found, others = list_images(path, IMG_EXTENSIONS + VIDEO_SUFFIXES)
        if not found:
            raise UserError(
                f"--input: {path} has no image and no video in it ({len(others)} other files)",
                f"images end in {' '.join(IMG_EXTENSIONS)}, videos in {' '.join(VIDEO_SUFFIXES)}",
            )
        return path, found, others
    if os.path.isfile(path):
        return os.path.dirname(path), [path], []
    if os.path.exists(path):
        camera = "a camera is --input webcam0, webcam1, ..."
        raise UserError(f"--input: {path} is not a file", camera)
    if os.path.lexists(path):
        raise MissingFileError(f"--input: {path} is a link to a file that is not there")
    if not glob.has_magic(word):
        raise MissingFileError(f"--input: there is no file or folder {path}")
    found = sorted(filter(os.path.isfile, _matches(path)))
    if not found:
        raise MissingFileError(f"--input: no file matches the pattern {path}")
    return os.path.commonpath([os.path.dirname(path) for path in found]), found, []


def _matches(pattern: str) -> set[str]:
    """The paths that match; ** stands for each real folder once, also where links form circles."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        return set(glob.glob(pattern))
    place = parts.index("**")
    roots = filter(os.path.isdir, glob.glob(os.sep.join(parts[:place]) or os.sep))
    folders = {os.path.normpath(folder) for root in roots for folder, _ in walk(root)}
    inside = parts[place + 1 :] or ["*"]
    return set().union(*(_matches(os.path.join(glob.escape(x), *inside)) for x in folders))


def _source(path: str, root: str) -> Source:
    name = Path(os.path.relpath(path, root)).as_posix()
    return Source("video" if path.lower().endswith(VIDEO_SUFFIXES) else "image", path, name)
