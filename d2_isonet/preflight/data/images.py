"""Checks the image files of a data set: that they are there, readable, and as they are stated."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from detectron2.config import CfgNode

from d2_isonet.data.image_sizes import (
    SIZE_REMEDY,
    SizeProblem,
    classification_size_problem,
    detection_size_problem,
)
from d2_isonet.data.shards.index import ShardedImages
from d2_isonet.preflight.findings import Finding, Rule, Severity, broken_rules, check_once, found

from .image_scan import MISSING, ImageFile, look_at_all
from .pixel_statistics import pixel_findings

Images = Sequence[dict] | ShardedImages
_KINDS = {"L": "grey", "1": "black and white", "P": "palette", "CMYK": "CMYK"}
_SEED = 0  # of the sample: every start reads the same files, whose findings are cached


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
    """

    stated: ImageEntry
    file: ImageFile
    problem: str = ""

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
) -> list[Finding]:
    """What is wrong with `number` of the files (-1: all); nothing without files.

    Args:
        max_unreadable: share of these files that may be unreadable; up to it, they are a warning.
    """
    if not (number and entries):
        return []
    chosen = sample_of(entries, number)
    paths = [entry.path for entry in chosen]
    files = look_at_all(paths, f"{where}: images", reader.most_pixels)
    looks = [Look(x, files[x.path], _size_problem(files[x.path], reader)) for x in chosen]
    what = f"{len(looks)} of {len(entries)} image files looked at"
    remedy = "d2-isonet check-data looks at all, DATASETS.CHECKED_IMAGES -1 too"
    rules = [*_unusable(looks, max_unreadable), *(_SIZES if reader.turns else _TURNED)]
    return [
        Finding("fact", where, what, remedy if len(looks) < len(entries) else ""),
        *broken_rules(where, "images", looks, lambda look, _: look.stated.path, rules),
        *_converted(where, looks),
        *_constant_size(where, looks),
    ]


def _size_problem(file: ImageFile, reader: Reader) -> str:
    size = file.upright_size() if reader.turns else (file.width, file.height)
    return "" if file.error else reader.problem(*size)


def _unusable(looks: Sequence[Look], max_unreadable: float) -> list[Rule]:
    """The rules of files that cannot be trained on: warnings up to that share, else errors."""
    number = sum(bool(x.file.error or x.problem) or x.file.has_deep_pixels for x in looks)
    most = max((look.file.pixels for look in looks), default=0)
    severity: Severity = "error" if number > max_unreadable * len(looks) else "warning"
    passes = f"; DATALOADER.MAX_UNREADABLE {max_unreadable:g} is the share that may be so"
    return [
        Rule(severity, lambda look: look.file.error == MISSING, "looked for and not there",
             "restore them, take them out of the data set, or give the right folder "
             "(DETECTRON2_DATASETS, --train-images, --val-images)"),
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


_SIZES = (  # for readers that apply the EXIF orientation
    Rule("error", lambda look: look.has_other_size() and not look.is_turned(),
         "with another width x height than is claimed",
         "correct width and height, and see whether the boxes are those of this file", Look.sizes),
    Rule("error", lambda look: look.has_other_size() and look.is_turned(),
         "with the size claimed that they have before their EXIF orientation is applied",
         "boxes are taken to be of the upright image: give its width and height (and boxes), "
         "or remove the EXIF orientation from the files", Look.sizes),
)  # fmt: skip
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
    stated = {look.stated[1:] for look in looks}
    others = sum(look.has_other_size() for look in looks)
    if len(stated) == 1 and others > max(1, len(looks) / 2):
        width, height = stated.pop()
        what = f"all images are stated as {width} x {height}, which {others} files are not"
        remedy = "some tools write a constant; see whether the boxes are of the files' sizes"
        yield Finding("warning", where, what, remedy)


def duplicate_findings(
    train: Sequence[ImageEntry], val: Sequence[ImageEntry], number: int = -1
) -> list[Finding]:
    """Files of `val` with the content of a file of `train`; none if no image is read (0).

    Unless all files are read (-1), only equal paths count, which costs no reading.
    """
    if not (number and train and val):
        return []
    paths = dict.fromkeys(entry.path for entry in (*train, *val))
    contents = {path: path for path in paths}
    if number < 0:
        contents = {path: file.digest for path, file in look_at_all(paths, "duplicates").items()}
    trained = {contents[entry.path]: entry.path for entry in train if contents[entry.path]}
    twins = [(entry.path, trained.get(contents[entry.path])) for entry in val]
    items = [f"{path} (as {twin})" if twin != path else path for path, twin in twins if twin]
    remedy = "the accuracy on them says nothing of new images: take them out of one of the two"
    what = f"of {len(val)} images that are trained on as well"
    return found("warning", "DATASETS.TEST", items, what, remedy)


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
        *duplicate_findings(training, validation, number),
    ]


def check_classified_images(cfg: CfgNode, train: Images, test: Images) -> None:
    """Print the findings on the images that a run with `cfg` reads.

    Raises:
        UserError: more than DATALOADER.MAX_UNREADABLE of the training images cannot be read, or
            any image for evaluation.
    """
    number, share = cfg.DATASETS.CHECKED_IMAGES, cfg.DATALOADER.MAX_UNREADABLE
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
