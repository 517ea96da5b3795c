"""The material: cut-outs and background photographs, each in one split only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

SPLITS = ("train", "val")
VAL_FRACTION = 0.25
MINIMUM_CUTOUTS = 8  # a class with fewer leaves nothing to generalize from


@dataclass(frozen=True)
class Cutout:
    """One object on transparency: rgba (H, W, 4), uint8, straight alpha."""

    name: str
    label: str
    rgba: np.ndarray


@dataclass(frozen=True)
class Photograph:
    """One background: rgb (H, W, 3), uint8."""

    name: str
    rgb: np.ndarray


@dataclass(frozen=True)
class Material:
    """What a source offers before the split, with where it comes from."""

    cutouts: Mapping[str, Sequence[Cutout]]
    photographs: Sequence[Photograph]
    credits: Sequence[str]  # one line for each source: what, whose, under which licence
    licences: Mapping[str, str] = field(default_factory=dict)  # file name -> text
    notes: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class Library:
    """Material of one split; classes is the same tuple in every split, index = label."""

    classes: tuple[str, ...]
    cutouts: Mapping[str, Sequence[Cutout]]
    photographs: Sequence[Photograph]


def split_material(material: Material, seed: int) -> dict[str, Library]:
    """Libraries by split: no cut-out and no photograph is in two of them.

    The same split serves classification and detection, so that nothing a pretrained backbone
    has seen turns up in the validation pictures of the detector.
    Raises ValueError where a class or the photographs cannot fill both splits.
    """
    classes = tuple(sorted(material.cutouts))
    generator = np.random.default_rng([seed, 0x5B117])
    by_class = {c: _split(material.cutouts[c], f"class {c!r}", generator) for c in classes}
    photographs = _split(material.photographs, "the photographs", generator)
    return {
        split: Library(classes, {c: by_class[c][split] for c in classes}, photographs[split])
        for split in SPLITS
    }


def _split(items: Sequence, what: str, generator: np.random.Generator) -> dict[str, list]:
    ordered = sorted(items, key=lambda item: item.name)
    if len(ordered) < 2:
        raise ValueError(f"{what}: {len(ordered)} found, two splits need at least 2.")
    validation = max(1, round(VAL_FRACTION * len(ordered)))
    chosen = set(generator.permutation(len(ordered))[:validation].tolist())
    return {
        "train": [item for i, item in enumerate(ordered) if i not in chosen],
        "val": [item for i, item in enumerate(ordered) if i in chosen],
    }
