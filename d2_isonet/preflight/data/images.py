"""Checks the image files of a data set: that they are there, readable, and as they are stated."""

import os
import random
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from detectron2.config import CfgNode

from d2_isonet.data.coco_json import is_number
from d2_isonet.data.image_sizes import (
    SIZE_REMEDY,
    SizeProblem,
    classification_size_problem,
    detection_size_problem,
)
from d2_isonet.data.shards.index import ShardedImages
from d2_isonet.preflight.findings import Finding, Rule, Severity, broken_rules, check_once

from .copies import MOST_COMPARED, copy_findings
from .image_scan import MISSING, ImageFile, look_at_all
from .nearest_files import NearestFiles
from .pixel_statistics import pixel_findings

# In the remedies of a set with a json; `with_command` replaces it.
REPAIR = "d2-isonet check-data --annotations FILE --images DIR --repair NEW writes a json"
Images = Sequence[dict] | ShardedImages
_KINDS = {"L": "grey", "1": "black and white", "P": "palette", "CMYK": "CMYK"}
_SEED = 0  # of the sample: every start reads the same files, whose findings are cached


def with_command(finding: Finding, json_file: str, image_root: str) -> Finding:
    """The finding with the names of this data set in the command that repairs its json."""
    stem, number = os.path.splitext(json_file)[0], 1
    while os.path.exists(new := f"{stem}_repaired{number if number > 1 else ''}.json"):
        number += 1
    words = {"FILE": json_file, "DIR": image_root, "NEW": new}
    command = re.sub("|".join(words), lambda match: shlex.quote(words[match[0]]), REPAIR)
    return finding._replace(remedy=finding.remedy.replace(REPAIR, command))


class ImageEntry(NamedTuple):
    """The path of an image, and the size in pixels that its data set states, if it does."""

    path: str
    width: float | None = None
    height: float | None = None


def dict_entries(dicts: object) -> list[ImageEntry]:
    """The image files of detectron2's dicts; none if `dicts` is something else."""
    if not isinstance(dicts, (list, tuple)):
        return []
    return [
        ImageEntry(str(d["file_name"]), d.get("width"), d.get("height"))
        for d in dicts
        if isinstance(d, dict) and d.get("file_name")
    ]


def number_to_read(cfg: CfgNode, train: int, val: int) -> int:
    """How many images of each set to read before a run, given how many there are; -1 for all."""
    number = cfg.DATASETS.CHECKED_IMAGES
    return -1 if number and train and train + val <= MOST_COMPARED else number


def sample_of(entries: Sequence[ImageEntry], number: int) -> Sequence[ImageEntry]:
    """`number` entries: the first, the last and random ones; -1 for all."""
    if number < 0 or number >= len(entries):
        return entries
    inner = random.Random(_SEED).sample(range(1, len(entries) - 1), max(0, number - 2))
    return [entries[i] for i in sorted({0, len(entries) - 1, *inner})[:number]]


class Reader(NamedTuple):
    """How a run reads the files of a set.

    Args:
        turns: whether it applies the EXIF orientation.
        most_pixels: INPUT.MAX_IMAGE_PIXELS.
        problem: what is wrong with a width and a height for its crops and resizes.
    """

    turns: bool
    most_pixels: int
    problem: SizeProblem


def detection_reader(cfg: CfgNode, is_train: bool) -> Reader:
    """The reader of a detector's training or validation images."""
    return Reader(True, cfg.INPUT.MAX_IMAGE_PIXELS, detection_size_problem(cfg, is_train))


class Look(NamedTuple):
    """What the data set states of an image, and what its file has.

    Args:
        problem: why a crop or a resize would make it unusable; "" if it would not.
        nearest: the file that is meant, if there is none of this name.
    """

    stated: ImageEntry
    file: ImageFile
    problem: str = ""
    nearest: str | None = None

    def has_other_size(self) -> bool:
        """Whether the stated size is not that of the upright image."""
        stated = self.stated[1:]
        return not (self.file.error or None in stated or stated == self.file.upright_size())

    def is_turned(self) -> bool:
        """Whether EXIF explains the stated size: width and height are exchanged."""
        return self.file.orientation >= 5 and self.stated[1:] == self.file.upright_size()[::-1]

    def sizes(self) -> str:
        _, width, height = self.stated
        return "({} x {}, the file has {} x {})".format(width, height, *self.file.upright_size())


def image_findings(
    where: str,
    entries: Sequence[ImageEntry],
    number: int,
    max_unreadable: float,
    reader: Reader,
    root: str = "",
) -> list[Finding]:
    """What is wrong with `number` of the files (-1: all); nothing without files.

    Args:
        root: the folder of a set with a json, in which the files of wrong names are looked for.
        max_unreadable: share of these files that may be unreadable; up to it, they are a warning.
    """
    if not (number and entries):
        return []
    chosen = sample_of(entries, number)
    paths = [entry.path for entry in chosen]
    files = look_at_all(paths, f"{where}: images", reader.most_pixels)
    is_missing = any(file.error == MISSING for file in files.values())
    nearest = NearestFiles(root) if root and is_missing else None
    looks = [_look(x, files[x.path], reader, nearest) for x in chosen]
    what = f"{len(looks)} of {len(entries)} image files looked at"
    remedy = "d2-isonet check-data looks at all, DATASETS.CHECKED_IMAGES -1 too"
    rules = [*_unusable(looks, max_unreadable), *(_sizes(bool(root)) if reader.turns else _TURNED)]
    return [
        Finding("fact", where, what, remedy if len(looks) < len(entries) else ""),
        *broken_rules(where, "images", looks, lambda look, _: look.stated.path, rules),
        *_converted(where, looks),
        *_constant_size(where, looks),
    ]


def _look(entry: ImageEntry, file: ImageFile, reader: Reader, nearest: NearestFiles | None) -> Look:
    size = file.upright_size() if reader.turns else (file.width, file.height)
    problem = "" if file.error else reader.problem(*size)
    is_missing = file.error == MISSING
    return Look(entry, file, problem, nearest.find(entry.path) if nearest and is_missing else None)


def _unusable(looks: Sequence[Look], max_unreadable: float) -> list[Rule]:
    """The rules of files that cannot be trained on: warnings up to that share, else errors."""
    number = sum(bool(x.file.error or x.problem) or x.file.has_deep_pixels for x in looks)
    most = max((look.file.pixels for look in looks), default=0)
    severity: Severity = "error" if number > max_unreadable * len(looks) else "warning"
    passes = f"; DATALOADER.MAX_UNREADABLE {max_unreadable:g} is the share that may be so"
    return [
        Rule(severity, lambda look: look.file.error == MISSING and not look.nearest,
             "looked for and not there",
             "restore them, take them out of the data set, or give the right folder "
             "(DETECTRON2_DATASETS, --train-images, --val-images)"),
        Rule(severity, lambda look: look.nearest, "not there by this name",
             f"{REPAIR} with the names of the files that are there",
             lambda look: f"(there is {look.nearest})"),
        Rule(severity, lambda look: look.file.error not in ("", MISSING) and not look.file.pixels,
             "unreadable", "replace the files, or take them out of the data set" + passes,
             lambda look: f"({look.file.error})"),
        Rule(severity, lambda look: look.file.pixels, "too large",
             f"cut them into tiles, or set INPUT.MAX_IMAGE_PIXELS {most}",
             lambda look: f"({look.file.error})"),
        Rule(severity, lambda look: look.problem, "that a crop or a resize would make unusable",
             SIZE_REMEDY.replace("it", "them"), lambda look: f"({look.problem})"),
        Rule(severity, lambda look: look.file.has_deep_pixels,
             "with more than 8 bits a channel, which a conversion would turn white",
             "save them with 8 bits, scaled as their content asks for",
             lambda look: f"(mode {look.file.mode})"),
    ]  # fmt: skip


def _sizes(has_json: bool) -> list[Rule]:
    """The rules of readers that apply the EXIF orientation."""
    size = f"{REPAIR} with those of the files" if has_json else "correct width and height"
    return [
        Rule("error", lambda look: look.has_other_size() and not look.is_turned(),
             "with another width x height than is claimed",
             f"{size}, and see whether the boxes are those of this file", Look.sizes),
        Rule("error", lambda look: look.has_other_size() and look.is_turned(),
             "with the size claimed that they have before their EXIF orientation is applied",
             "boxes are taken to be of the upright image: give its width and height (and boxes), "
             "or remove the EXIF orientation from the files", Look.sizes),
    ]  # fmt: skip


_TURNED = (  # for readers that do not
    Rule("fact", lambda look: look.file.orientation != 1,
         "with an EXIF orientation, which is not applied (that of a TIFF is)"),
)  # fmt: skip


def _converted(where: str, looks: Sequence[Look]) -> Iterator[Finding]:
    files = [look.file for look in looks if not look.file.error and not look.file.has_deep_pixels]
    modes = Counter(file.mode for file in files if file.mode != "RGB")
    counts = ", ".join(f"{n} {_KINDS.get(mode, mode)}" for mode, n in sorted(modes.items()))
    alpha = "; their alpha channel is dropped" if any("A" in mode for mode in modes) else ""
    if modes:
        yield Finding("fact", where, f"images that are converted to RGB: {counts}{alpha}")


def _constant_size(where: str, looks: Sequence[Look]) -> Iterator[Finding]:
    """One size for all images, which most files do not have, is no size at all."""
    sizes = [look.stated[1:] for look in looks]
    stated = {size for size in sizes if all(map(is_number, size))}
    others = sum(look.has_other_size() for look in looks)
    if len(stated) == 1 and others > max(1, len(looks) / 2):
        width, height = stated.pop()
        what = f"all images are stated as {width} x {height}, which {others} files are not"
        remedy = "some tools write a constant; see whether the boxes are of the files' sizes"
        yield Finding("warning", where, what, remedy)


def classified_image_findings(
    cfg: CfgNode, train: Images, test: Images, number: int = -1
) -> list[Finding]:
    """What is wrong with the files of two sets of classified images, each of which may be empty.

    Shards are left out: their checksums are compared when they are read.

    Args:
        number: images of each set that are read; -1 for all, 0 for none.
    """
    training, validation = dict_entries(train), dict_entries(test)
    readers = [
        Reader(False, cfg.INPUT.MAX_IMAGE_PIXELS, classification_size_problem(cfg, is_train))
        for is_train in (True, False)
    ]
    share = cfg.DATALOADER.MAX_UNREADABLE
    return [
        *image_findings("DATASETS.TRAIN", training, number, share, readers[0]),
        *image_findings("DATASETS.TEST", validation, number, 0.0, readers[1]),
        *copy_findings((e.path for e in training), (e.path for e in validation), number),
    ]


def check_classified_images(cfg: CfgNode, train: Images, test: Images) -> None:
    """Print the findings on the images that a run with `cfg` reads.

    Raises:
        UserError: more than DATALOADER.MAX_UNREADABLE of the training images cannot be read, or
            any image for evaluation.
    """
    share = cfg.DATALOADER.MAX_UNREADABLE
    number = number_to_read(cfg, len(dict_entries(train)), len(dict_entries(test)))
    check_once(
        lambda: [
            *max_unreadable_findings(share, isinstance(train, ShardedImages)),
            *classified_image_findings(cfg, train, test, number),
            *pixel_findings(cfg, "DATASETS.TRAIN", dict_entries(train) if number else []),
        ]
    )


def max_unreadable_findings(share: float, in_shards: bool = False) -> Iterator[Finding]:
    """The errors of DATALOADER.MAX_UNREADABLE: it is no share, or shards cannot have one."""
    if not 0 <= share < 1:
        remedy = "give the share of images that may be unreadable, say 0.01, or 0 for none"
        yield Finding("error", "DATALOADER.MAX_UNREADABLE", f"it is {share}", remedy)
    if share and in_shards:
        what = f"it is {share:g}, but image shards have no others to take for unreadable images"
        yield Finding("error", "DATALOADER.MAX_UNREADABLE", what, "set it to 0")
