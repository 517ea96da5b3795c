"""Cut, paste and learn: cut-outs on a photograph, with the exact mask of what stays visible."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .library import Cutout, Library, Photograph
from .patch import match_colour, transform

BACKGROUND_CROP = (0.45, 1.0)  # of the largest crop with the aspect ratio of the scene
CENTRE_MARGIN = 0.12  # of the frame: how near its centre an object may come to the border
ATTEMPTS = 12


@dataclass(frozen=True)
class Layer:
    """A cut-out in place: patch (h, w, 4), float32, colour premultiplied by alpha in [0, 1]."""

    cutout: Cutout
    patch: np.ndarray
    left: int
    top: int


def crop_photograph(
    photograph: Photograph, size: tuple[int, int], generator: np.random.Generator
) -> np.ndarray:
    """A random crop, maybe mirrored, resized to size (width, height): (H, W, 3) float32."""
    width, height = size
    rows, columns = photograph.rgb.shape[:2]
    scale = min(columns / width, rows / height) * generator.uniform(*BACKGROUND_CROP)
    crop_width, crop_height = max(1, int(width * scale)), max(1, int(height * scale))
    left = int(generator.integers(0, columns - crop_width + 1))
    top = int(generator.integers(0, rows - crop_height + 1))
    crop = photograph.rgb[top : top + crop_height, left : left + crop_width]
    if generator.random() < 0.5:
        crop = cv2.flip(crop, 1)
    mode = cv2.INTER_AREA if crop_width > width else cv2.INTER_LINEAR
    return cv2.resize(crop, (width, height), interpolation=mode).astype(np.float32)


def _window(layer: Layer, size: tuple[int, int]) -> tuple[slice, slice, slice, slice]:
    """Rows and columns of the frame that the layer covers, then the same of its patch."""
    width, height = size
    rows, columns = layer.patch.shape[:2]
    top, left = max(layer.top, 0), max(layer.left, 0)
    bottom, right = min(layer.top + rows, height), min(layer.left + columns, width)
    return (
        slice(top, bottom),
        slice(left, right),
        slice(top - layer.top, bottom - layer.top),
        slice(left - layer.left, right - layer.left),
    )


def visible_masks(layers: Sequence[Layer], size: tuple[int, int]) -> list[np.ndarray]:
    """mask_i = (alpha_i > 0.5) minus all later (alpha_j > 0.5): bool (H, W), in paste order."""
    masks: list[np.ndarray] = []
    for layer in layers:
        rows, columns, patch_rows, patch_columns = _window(layer, size)
        mask = np.zeros((size[1], size[0]), dtype=bool)
        mask[rows, columns] = layer.patch[patch_rows, patch_columns, 3] > 0.5
        for earlier in masks:
            earlier[rows, columns] &= ~mask[rows, columns]
        masks.append(mask)
    return masks


def render(background: np.ndarray, layers: Sequence[Layer]) -> np.ndarray:
    """Layers over the background, in order: uint8 (H, W, 3)."""
    canvas = background.copy()
    size = (canvas.shape[1], canvas.shape[0])
    for layer in layers:
        rows, columns, patch_rows, patch_columns = _window(layer, size)
        patch = layer.patch[patch_rows, patch_columns]
        canvas[rows, columns] = canvas[rows, columns] * (1 - patch[..., 3:]) + patch[..., :3]
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def place(
    cutout: Cutout,
    long_side: float,
    background: np.ndarray,
    margin: float,
    generator: np.random.Generator,
) -> Layer:
    """The cut-out coloured for a random place; its centre keeps margin * side from the border."""
    patch = transform(cutout, long_side, generator)
    height, width = background.shape[:2]
    left = round(generator.uniform(margin, 1 - margin) * width - patch.shape[1] / 2)
    top = round(generator.uniform(margin, 1 - margin) * height - patch.shape[0] / 2)
    rows, columns = _window(Layer(cutout, patch, left, top), (width, height))[:2]
    return Layer(cutout, match_colour(patch, background[rows, columns], generator), left, top)


def all_visible(layers: Sequence[Layer], size: tuple[int, int], visibility: float) -> bool:
    """Whether every object still shows at least this fraction of its own pixels."""
    masks = visible_masks(layers, size)
    wholes = [int((layer.patch[..., 3] > 0.5).sum()) for layer in layers]
    return all(
        mask.sum() >= max(visibility * whole, 1) for mask, whole in zip(masks, wholes, strict=True)
    )


def arrange(
    cutouts: Sequence[Cutout],
    sides: tuple[float, float],
    background: np.ndarray,
    visibility: float,
    generator: np.random.Generator,
) -> list[Layer]:
    """Layers in paste order, long sides log-uniform between sides.

    A place that would hide an object is drawn again, each time nearer the centre; a cut-out that
    finds none is not pasted at all, so that no unlabelled remainder stays in view. The first
    one always gets a place.
    """
    size = (background.shape[1], background.shape[0])
    layers: list[Layer] = []
    for cutout in cutouts:
        side = float(np.exp(generator.uniform(*np.log(sides))))
        for margin in np.linspace(CENTRE_MARGIN, 0.5, ATTEMPTS):
            candidate = [*layers, place(cutout, side, background, margin, generator)]
            fits = all_visible(candidate, size, visibility)
            if fits or (not layers and margin == 0.5):
                layers = candidate
                break
    return layers


def draw_cutouts(
    library: Library, labels: Sequence[str], generator: np.random.Generator
) -> list[Cutout]:
    """One random cut-out for each label."""
    pools = [library.cutouts[label] for label in labels]
    return [pool[generator.integers(len(pool))] for pool in pools]


def draw_photograph(library: Library, generator: np.random.Generator) -> Photograph:
    """One random background."""
    return library.photographs[generator.integers(len(library.photographs))]
