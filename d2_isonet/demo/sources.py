"""The images, videos or webcam that --input names."""

import glob
import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

from torchvision.datasets.folder import IMG_EXTENSIONS

from d2_isonet.data.image_folder import list_images
from d2_isonet.utils.messages import MissingFileError, UserError

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".gif",
)  # fmt: skip


class Source(NamedTuple):
    """A file or a webcam.

    Args:
        path: of the file, or the number of a webcam.
        name: path of the file below the folder that contains all of them, with "/". It is COCO's
            file_name.
    """

    kind: Literal["image", "video", "webcam"]
    path: str
    name: str


class Found(NamedTuple):
    """The result of `find_sources`.

    Args:
        sources: each file once.
        folders: the folders that --input names.
        others: the files in these folders that are neither image nor video.
    """

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
    webcams = [word for word in words if _is_webcam(word)]
    if webcams and len(words) > 1:
        raise UserError(f"--input: {webcams[0]} must be given alone")
    if webcams:
        number = webcams[0].removeprefix("webcam") or "0"
        return Found([Source("webcam", number, f"webcam{number}")], [], [])
    files: dict[str, str] = {}  # real path -> path
    roots: list[str] = []
    folders: list[str] = []
    others: list[str] = []
    for word in words:
        root, found, left_out = _find(word)
        roots.append(root)
        folders += [root] if os.path.isdir(os.path.expanduser(word)) else []
        others += left_out
        for path in found:
            files.setdefault(os.path.realpath(path), path)
    root = os.path.commonpath(roots)
    sources = [_source(path, root) for path in files.values()]
    return Found(sources, folders, others)


def _is_webcam(word: str) -> bool:
    return re.fullmatch(r"webcam\d*", word) is not None and not os.path.exists(word)


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
    if os.path.lexists(path):
        _require_regular(path)
        return os.path.dirname(path), [path], []
    if glob.has_magic(word):
        return _match(path)
    raise MissingFileError(f"--input: there is no file or folder {path}")


def _require_regular(path: str) -> None:
    if not os.path.exists(path):
        raise MissingFileError(f"--input: {path} is a link to a file that is not there")
    if not os.path.isfile(path):
        raise UserError(
            f"--input: {path} is not a file", "a camera is --input webcam0, webcam1, ..."
        )


def _match(pattern: str) -> tuple[str, list[str], list[str]]:
    found = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    if not found:
        raise MissingFileError(f"--input: no file matches the pattern {pattern}")
    return os.path.commonpath([os.path.dirname(path) for path in found]), found, []


def _source(path: str, root: str) -> Source:
    name = Path(os.path.relpath(path, root)).as_posix()
    return Source("video" if path.lower().endswith(VIDEO_SUFFIXES) else "image", path, name)
