"""Cut-outs and backgrounds: their split into train and val, and generated ones without packages."""

import colorsys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

SPLITS = ("train", "val")
VAL_FRACTION = 0.25
MINIMUM_CUTOUTS = 8  # a class with fewer cut-outs is too small to learn from


@dataclass(frozen=True)
class Cutout:
    """One object on a transparent ground: rgba (H, W, 4), uint8, straight alpha."""

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
    """The cut-outs and backgrounds of a source or of one of its splits, with their origin."""

    cutouts: Mapping[str, Sequence[Cutout]]
    photographs: Sequence[Photograph]
    credits: Sequence[str]  # a line for each source: content, authors, licence
    licences: Mapping[str, str] = field(default_factory=dict)  # file name -> text
    notes: Sequence[str] = ()

    @property
    def classes(self) -> list[str]:
        """The names of the classes; the same in every split, index = label."""
        return sorted(self.cutouts)


def split_material(material: Material, seed: int) -> dict[str, Material]:
    """Divide the material: no cut-out and no photograph is in both splits.

    Classification and detection use the same split, so a pretrained backbone has seen nothing of
    the detector's validation pictures.

    Raises:
        ValueError: a class or the photographs are too few for two splits.
    """
    generator = np.random.default_rng([seed, 0x5B117])
    by_class = {
        name: _split(material.cutouts[name], f"class {name!r}", generator)
        for name in material.classes
    }
    photographs = _split(material.photographs, "the photographs", generator)
    libraries = {}
    for split in SPLITS:
        cutouts = {name: items[split] for name, items in by_class.items()}
        libraries[split] = replace(material, cutouts=cutouts, photographs=photographs[split])
    return libraries


def _split(items: Sequence, what: str, generator: np.random.Generator) -> dict[str, list]:
    ordered = sorted(items, key=lambda item: item.name)
    if len(ordered) < 2:
        raise ValueError(f"{what}: {len(ordered)} found, two splits need at least 2.")
    validation = max(1, round(VAL_FRACTION * len(ordered)))
    chosen = set(generator.permutation(len(ordered))[:validation].tolist())
    items = {split: [] for split in SPLITS}
    for i, item in enumerate(ordered):
        items["val" if i in chosen else "train"].append(item)
    return items


VARIANTS = 24  # generated cut-outs per class
GROUNDS = 16  # generated backgrounds
SIDE = 160  # pixels of a generated shape
SUPERSAMPLING = 4  # for smooth edges
GROUND_SIZE = (800, 600)


Draw = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _regular(corners: int, inner: float = 1.0) -> Draw:
    """Draws a regular polygon in the unit circle; inner < 1 gives a star."""
    steps = corners * (1 if inner == 1.0 else 2)
    angles = 2 * np.pi * np.arange(steps) / steps - np.pi / 2
    radii = np.where(np.arange(steps) % 2 == 1, inner, 1.0)
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)

    def draw(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        pixels = np.rint((points + 1) / 2 * (x.shape[0] - 1)).astype(np.int32)
        return cv2.fillPoly(np.zeros(x.shape, np.uint8), [pixels], 1) > 0

    return draw


SHAPES: dict[str, Draw] = {  # whether the points x, y in -1..1 are inside
    "circle": lambda x, y: x**2 + y**2 < 1,
    "crescent": lambda x, y: (x**2 + y**2 < 1) & ((x - 0.55) ** 2 + y**2 > 0.7),
    "cross": lambda x, y: (np.abs(x) < 0.3) | (np.abs(y) < 0.3),
    "hexagon": _regular(6),
    "ring": lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.3),
    "square": lambda x, y: (np.abs(x) < 0.85) & (np.abs(y) < 0.85),
    "star": _regular(5, inner=0.42),
    "triangle": _regular(3),
}


def shapes_material(seed: int) -> Material:
    """Textured shapes of every class of SHAPES and backgrounds; the seed alone determines them."""
    cutouts = {
        label: [_cutout(label, [seed, 1, index, i]) for i in range(VARIANTS)]
        for index, label in enumerate(sorted(SHAPES))
    }
    grounds = [Photograph(f"ground-{i:02d}", _ground([seed, 2, i])) for i in range(GROUNDS)]
    return Material(cutouts, grounds, ["generated shapes and textures"])


def _cutout(label: str, seed: list[int]) -> Cutout:
    generator = np.random.default_rng(seed)
    size = SIDE * SUPERSAMPLING
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    inside = SHAPES[label](x, y).astype(np.float32)
    alpha = cv2.resize(inside, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    height = round(SIDE * generator.uniform(0.7, 1.0))  # aspect ratios vary within a class
    # each class has its own colour, as fruit and signs do: the outline alone is hard to learn
    hue = (sorted(SHAPES).index(label) / len(SHAPES) + generator.normal(0, 0.02)) % 1
    colour = 255 * np.array(colorsys.hsv_to_rgb(hue, 0.8, generator.uniform(0.6, 0.95)))
    texture = 0.4 * _texture((SIDE, SIDE), generator) + 0.6 * colour.astype(np.float32)
    rgba = np.dstack([texture, 255 * alpha])
    rgba = cv2.resize(rgba, (SIDE, height), interpolation=cv2.INTER_AREA)
    return Cutout(f"{label}-{seed[-1]:02d}", label, np.rint(rgba).clip(0, 255).astype(np.uint8))


def _texture(size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Two colours mixed by stripes, clouds or a gradient: float32 (H, W, 3) in 0..255."""
    width, height = size
    first, second = generator.uniform(20, 235, (2, 3))
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    angle = generator.uniform(0, np.pi)
    slope = x * np.cos(angle) + y * np.sin(angle)
    kind = generator.integers(3)
    if kind == 0:
        mix = (np.sin(2 * np.pi * generator.uniform(3, 8) * slope) > 0).astype(np.float32)
    elif kind == 1:
        mix = _clouds(size, generator)
    else:
        mix = (slope - slope.min()) / np.ptp(slope)
    return (first + (second - first) * mix[..., None]).astype(np.float32)


def _clouds(size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """A sum of noise of several sizes, scaled to 0..1: (H, W)."""
    width, height = size
    total = np.zeros((height, width), np.float32)
    for cells in (3, 6, 12, 48):
        noise = generator.random((cells, cells), dtype=np.float32)
        total += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / np.sqrt(cells)
    return (total - total.min()) / np.ptp(total)


def _ground(seed: list[int]) -> np.ndarray:
    generator = np.random.default_rng(seed)
    colours = generator.uniform(20, 235, (3, 3)).astype(np.float32)
    first, second = (_clouds(GROUND_SIZE, generator)[..., None] for _ in range(2))
    ground = colours[0] + (colours[1] - colours[0]) * first
    ground += (colours[2] - ground) * second * 0.6
    grain = generator.normal(0, generator.uniform(2, 14), (*ground.shape[:2], 1))
    return np.clip(ground + grain, 0, 255).astype(np.uint8)
