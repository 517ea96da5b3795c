"""Checks the image files of a data set."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from detectron2.config import CfgNode

from d2_isonet.preflight.findings import Finding, Severity, found

from .image_scan import MISSING, ImageFile, look_at_all

_RESTORE = (
    "restore them, take them out of the data set, or give the right folder (DETECTRON2_DATASETS, "
    "--train-images, --val-images)"
)
_KINDS = {"L": "grey", "1": "black and white", "P": "palette", "CMYK": "CMYK"}
_SEED = 0  # of the sample: every start reads the same files, whose findings are cached


class ImageEntry(NamedTuple):
    """The path of an image, and the size in pixels that its data set states, if it does."""

    path: str
    width: float | None = None
    height: float | None = None


def sample_of(entries: Sequence[ImageEntry], number: int) -> Sequence[ImageEntry]:
    """`number` entries: the first, the last and random ones; -1 for all."""
    if number < 0 or number >= len(entries):
        return entries
    inner = random.Random(_SEED).sample(range(1, len(entries) - 1), max(0, number - 2))
    return [entries[i] for i in sorted({0, len(entries) - 1, *inner})[:number]]


def image_findings(
    where: str,
    entries: Sequence[ImageEntry],
    number: int = -1,
    max_unreadable: float = 0.0,
    turns: bool = True,
) -> list[Finding]:
    """What is wrong with `number` of the files (-1: all).

    Args:
        max_unreadable: share of these files that may be unreadable; up to it, they are a warning.
        turns: whether the reader applies the EXIF orientation, as that of detectron2 does.
    """
    chosen = sample_of(entries, number)
    looks = look_at_all((entry.path for entry in chosen), title=f"{where}: images")
    pairs = [(entry, looks[entry.path]) for entry in chosen]
    of = f"of {len(pairs)} images"
    findings = [Finding("fact", where, f"{len(pairs)} of {len(entries)} image files looked at")]
    if len(pairs) < len(entries):
        findings[0] = findings[0]._replace(
            remedy="d2-isonet check-data looks at all, DATASETS.CHECKED_IMAGES -1 too"
        )
    return [
        *findings,
        *_unusable(where, pairs, of, max_unreadable),
        *(_sizes(where, pairs, of) if turns else _turned(where, pairs, of)),
        *_converted(where, pairs),
    ]


Pairs = list[tuple[ImageEntry, ImageFile]]


def _unusable(where: str, pairs: Pairs, of: str, max_unreadable: float) -> list[Finding]:
    missing = [e.path for e, look in pairs if look.error == MISSING]
    broken = [f"{e.path} ({look.error})" for e, look in pairs if look.error not in ("", MISSING)]
    deep = [f"{e.path} (mode {look.mode})" for e, look in pairs if look.has_deep_pixels]
    too_many = len(missing) + len(broken) + len(deep) > max_unreadable * len(pairs)
    severity: Severity = "error" if too_many else "warning"
    passes = f"; DATALOADER.MAX_UNREADABLE {max_unreadable:g} is the share that may be so"
    return [
        *found(severity, where, missing, f"{of} looked for and not there", _RESTORE),
        *found(
            severity, where, broken, f"{of} unreadable",
            "replace the files, or take them out of the data set" + passes,
        ),
        *found(
            severity, where, deep,
            f"{of} with more than 8 bits a channel, which a conversion would turn white",
            "save them with 8 bits, scaled as their content asks for",
        ),
    ]  # fmt: skip


def _sizes(where: str, pairs: Pairs, of: str) -> list[Finding]:
    """Stated sizes that differ from the file; those that EXIF explains are a separate finding."""
    wrong: list[str] = []
    turned: list[str] = []
    for entry, look in pairs:
        claimed, size = (entry.width, entry.height), look.upright_size()
        if look.error or None in claimed or claimed == size:
            continue
        text = f"{entry.path} ({claimed[0]} x {claimed[1]}, the file has {size[0]} x {size[1]})"
        by_exif = claimed == size[::-1] and look.orientation >= 5
        (turned if by_exif else wrong).append(text)
    return [
        *found(
            "error", where, wrong, f"{of} with another width x height than is claimed",
            "correct width and height, and see whether the boxes are those of this file",
        ),
        *found(
            "error", where, turned,
            f"{of} with the size claimed that they have before their EXIF orientation is applied",
            "boxes are taken to be of the upright image: give its width and height (and boxes), "
            "or remove the EXIF orientation from the files",
        ),
    ]  # fmt: skip


def _turned(where: str, pairs: Pairs, of: str) -> list[Finding]:
    turned = [entry.path for entry, look in pairs if look.orientation != 1]
    what = f"{of} with an EXIF orientation, which is not applied"
    return found("fact", where, turned, what)


def _converted(where: str, pairs: Pairs) -> list[Finding]:
    modes = Counter(look.mode for _, look in pairs if not look.error and not look.has_deep_pixels)
    names = {mode: _KINDS.get(mode, mode) for mode in modes if mode != "RGB"}
    if not names:
        return []
    counts = ", ".join(f"{modes[mode]} {name}" for mode, name in sorted(names.items()))
    alpha = "; their alpha channel is dropped" if any("A" in mode for mode in names) else ""
    return [Finding("fact", where, f"images that are converted to RGB: {counts}{alpha}")]


def duplicate_findings(
    train: Iterable[ImageEntry], val: Iterable[ImageEntry], number: int = -1
) -> list[Finding]:
    """Files of `val` with the content of a file of `train`.

    Unless all files are read (-1), only equal paths count, which costs no reading.
    """
    train, val = list(train), list(val)
    paths = {entry.path for entry in train}
    if number < 0:
        looks = look_at_all((entry.path for entry in (*train, *val)), title="duplicates")
        digests = {looks[path].digest: path for path in paths if looks[path].digest}
        twins = [(e.path, digests.get(looks[e.path].digest)) for e in val]
    else:
        twins = [(entry.path, entry.path if entry.path in paths else None) for entry in val]
    items = [f"{path} (as {twin})" if twin != path else path for path, twin in twins if twin]
    return found(
        "warning", "DATASETS.TEST", items, f"of {len(val)} images that are trained on as well",
        "the accuracy on them says nothing of new images: take them out of one of the two",
    )  # fmt: skip


def max_unreadable_findings(cfg: CfgNode) -> list[Finding]:
    """An error if DATALOADER.MAX_UNREADABLE is no share."""
    share = cfg.DATALOADER.MAX_UNREADABLE
    if 0 <= share < 1:
        return []
    remedy = "give the share of images that may be unreadable, say 0.01, or 0 for none"
    return [Finding("error", "DATALOADER.MAX_UNREADABLE", f"it is {share}", remedy)]
