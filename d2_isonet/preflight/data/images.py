"""Checks the image files of a data set: that they are there, readable, and as they are stated."""

import os
import random
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from detectron2.config import CfgNode

from d2_isonet.data.shards.index import ShardedImages
from d2_isonet.preflight.findings import Finding, Rule, Severity, broken_rules, check_once

from .copies import MOST_COMPARED, copy_findings
from .image_scan import MISSING, ImageFile, look_at_all
from .nearest_files import NearestFiles

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


class Look(NamedTuple):
    """What the data set states of an image, what its file has, and the file that is meant."""

    stated: ImageEntry
    file: ImageFile
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
    number: int = -1,
    max_unreadable: float = 0.0,
    turns: bool = True,
    root: str = "",
) -> list[Finding]:
    """What is wrong with `number` of the files (-1: all); nothing without files.

    Args:
        root: the folder of a set with a json, in which the files of wrong names are looked for.
        max_unreadable: share of these files that may be unreadable; up to it, they are a warning.
        turns: whether the reader applies the EXIF orientation, as that of detectron2 does.
    """
    if not (number and entries):
        return []
    chosen = sample_of(entries, number)
    files = look_at_all((entry.path for entry in chosen), title=f"{where}: images")
    is_missing = any(file.error == MISSING for file in files.values())
    nearest = NearestFiles(root) if root and is_missing else None
    looks = [Look(entry, files[entry.path], _nearest(nearest, entry, files)) for entry in chosen]
    what = f"{len(looks)} of {len(entries)} image files looked at"
    remedy = "d2-isonet check-data looks at all, DATASETS.CHECKED_IMAGES -1 too"
    rules = [*_unusable(looks, max_unreadable), *(_sizes(bool(root)) if turns else _TURNED)]
    return [
        Finding("fact", where, what, remedy if len(looks) < len(entries) else ""),
        *broken_rules(where, "images", looks, lambda look, _: look.stated.path, rules),
        *_converted(where, looks),
    ]


def _nearest(nearest: NearestFiles | None, entry: ImageEntry, files: dict) -> str | None:
    is_missing = nearest and files[entry.path].error == MISSING
    return nearest.find(entry.path) if nearest and is_missing else None


def _unusable(looks: Sequence[Look], max_unreadable: float) -> list[Rule]:
    """The rules of files that cannot be trained on: warnings up to that share, else errors."""
    number = sum(bool(look.file.error) or look.file.has_deep_pixels for look in looks)
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
        Rule(severity, lambda look: look.file.error not in ("", MISSING), "unreadable",
             "replace the files, or take them out of the data set" + passes,
             lambda look: f"({look.file.error})"),
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
         "with an EXIF orientation, which is not applied"),
)  # fmt: skip


def _converted(where: str, looks: Sequence[Look]) -> Iterator[Finding]:
    files = [look.file for look in looks if not look.file.error and not look.file.has_deep_pixels]
    modes = Counter(file.mode for file in files if file.mode != "RGB")
    counts = ", ".join(f"{n} {_KINDS.get(mode, mode)}" for mode, n in sorted(modes.items()))
    alpha = "; their alpha channel is dropped" if any("A" in mode for mode in modes) else ""
    if modes:
        yield Finding("fact", where, f"images that are converted to RGB: {counts}{alpha}")


def classified_image_findings(
    train: Images, test: Images, number: int = -1, max_unreadable: float = 0.0
) -> list[Finding]:
    """What is wrong with the files of two sets of classified images, each of which may be empty.

    Shards are left out: their checksums are compared when they are read.

    Args:
        number: images of each set that are read; -1 for all, 0 for none.
        max_unreadable: share of the training images that may be unreadable.
    """
    training, validation = dict_entries(train), dict_entries(test)
    return [
        *image_findings("DATASETS.TRAIN", training, number, max_unreadable, turns=False),
        *image_findings("DATASETS.TEST", validation, number, turns=False),
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
            *classified_image_findings(train, test, number, share),
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
