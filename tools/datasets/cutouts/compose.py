"""Paste cut-outs on a photograph and compute the exact mask of their visible pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np

from .library import Cutout, Photograph

T = TypeVar("T")
BACKGROUND_CROP = (0.45, 1.0)  # relative to the largest crop with the aspect ratio of the scene
CENTRE_MARGIN = 0.12  # least distance of an object's centre from the border, relative to the frame
ATTEMPTS = 12
MAXIMUM_ENLARGEMENT = 2.2  # beyond it a cut-out looks blurred beside its background
MAXIMUM_ROTATION = 20.0  # degrees
EDGE_BLUR = (0.3, 0.7)  # standard deviation in pixels
BRIGHTNESS = (0.85, 1.15)
COLOUR_PULL = (0.0, 0.25)  # fraction of the way to the mean colour behind the object


@dataclass(frozen=True)
class Layer:
    """A placed cut-out: patch (h, w, 4), float32, colour premultiplied by alpha in [0, 1]."""

    cutout: Cutout
    patch: np.ndarray
    left: int
    top: int

    @property
    def solid(self) -> np.ndarray:
        """The pixels of the patch that belong to the object: bool (h, w)."""
        return self.patch[..., 3] > 0.5


def crop_photograph(
    photograph: Photograph, size: tuple[int, int], generator: np.random.Generator
) -> np.ndarray:
    """A random crop, randomly mirrored, resized to size (width, height): (H, W, 3) float32."""
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


def _window(layer: Layer, size: tuple[int, int]) -> tuple[tuple[slice, slice], ...]:
    """The rows and columns that the layer covers in the frame, and the same in its patch."""
    ends = ((layer.top, size[1]), (layer.left, size[0]))
    frame, patch = [], []
    for (start, limit), length in zip(ends, layer.patch.shape, strict=False):
        first, last = max(start, 0), min(start + length, limit)
        frame.append(slice(first, last))
        patch.append(slice(first - start, last - start))
    return tuple(frame), tuple(patch)


def visible_masks(layers: Sequence[Layer], size: tuple[int, int]) -> list[np.ndarray]:
    """mask_i = (alpha_i > 0.5) minus all later (alpha_j > 0.5): bool (H, W), in paste order."""
    masks: list[np.ndarray] = []
    for layer in layers:
        frame, inside = _window(layer, size)
        mask = np.zeros(size[::-1], dtype=bool)
        mask[frame] = layer.solid[inside]
        for earlier in masks:
            earlier[frame] &= ~mask[frame]
        masks.append(mask)
    return masks


def render(background: np.ndarray, layers: Sequence[Layer]) -> np.ndarray:
    """The layers drawn over the background in paste order: uint8 (H, W, 3)."""
    canvas = background.copy()
    for layer in layers:
        frame, inside = _window(layer, canvas.shape[1::-1])
        patch = layer.patch[inside]
        canvas[frame] = canvas[frame] * (1 - patch[..., 3:]) + patch[..., :3]
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def place(
    cutout: Cutout,
    long_side: float,
    background: np.ndarray,
    margin: float,
    generator: np.random.Generator,
) -> Layer:
    """Place the cut-out at random, its centre at least margin * side from the border."""
    patch = transform(cutout, long_side, generator)
    height, width = background.shape[:2]
    left = round(generator.uniform(margin, 1 - margin) * width - patch.shape[1] / 2)
    top = round(generator.uniform(margin, 1 - margin) * height - patch.shape[0] / 2)
    layer = Layer(cutout, patch, left, top)
    behind = background[_window(layer, (width, height))[0]]
    return replace(layer, patch=match_colour(patch, behind, generator))


def arrange(
    cutouts: Sequence[Cutout],
    sides: tuple[float, float],
    background: np.ndarray,
    visibility: float,
    generator: np.random.Generator,
) -> list[Layer]:
    """Layers in paste order, their long sides log-uniform between `sides`.

    A place that would hide an object, more of it than `visibility` allows, is drawn again, each
    time nearer to the centre. A cut-out without a valid place is skipped, so that no unlabelled
    object is visible. The first cut-out always gets a place.
    """
    layers: list[Layer] = []
    for cutout in cutouts:
        side = float(np.exp(generator.uniform(*np.log(sides))))
        for margin in np.linspace(CENTRE_MARGIN, 0.5, ATTEMPTS):
            candidate = [*layers, place(cutout, side, background, margin, generator)]
            masks = visible_masks(candidate, background.shape[1::-1])
            pairs = zip(masks, candidate, strict=True)
            fits = all(m.sum() >= max(visibility * x.solid.sum(), 1) for m, x in pairs)
            if fits or (not layers and margin == 0.5):
                layers = candidate
                break
    return layers


def draw(pool: Sequence[T], generator: np.random.Generator) -> T:
    """One random item of the pool."""
    return pool[generator.integers(len(pool))]


def transform(cutout: Cutout, long_side: float, generator: np.random.Generator) -> np.ndarray:
    """The cut-out scaled, mirrored, rotated and softened: a patch as in Layer.

    Its long side before rotation is `long_side` pixels, at most MAXIMUM_ENLARGEMENT times its own.
    """
    patch = cutout.rgba.astype(np.float32)
    patch[..., 3] /= 255.0
    patch[..., :3] *= patch[..., 3:]
    rows, columns = patch.shape[:2]
    scale = min(long_side / max(rows, columns), MAXIMUM_ENLARGEMENT)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    patch = cv2.resize(patch, size, interpolation=mode)
    if generator.random() < 0.5:
        patch = cv2.flip(patch, 1)
    angle = generator.uniform(-MAXIMUM_ROTATION, MAXIMUM_ROTATION)
    return _soften_edge(_rotate(patch, angle), generator.uniform(*EDGE_BLUR))


def _rotate(patch: np.ndarray, degrees: float) -> np.ndarray:
    rows, columns = patch.shape[:2]
    matrix = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), degrees, 1.0)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    width = int(np.ceil(columns * cosine + rows * sine)) + 4  # room for the soft edge
    height = int(np.ceil(columns * sine + rows * cosine)) + 4
    matrix[:, 2] += ((width - columns) / 2, (height - rows) / 2)
    return cv2.warpAffine(patch, matrix, (width, height), flags=cv2.INTER_LINEAR)


def _soften_edge(patch: np.ndarray, deviation: float) -> np.ndarray:
    """Blur the edge, where alpha is not full; keep the inside sharp."""
    blurred = cv2.GaussianBlur(patch, (5, 5), deviation, borderType=cv2.BORDER_CONSTANT)
    inside = cv2.erode(patch[..., 3], np.ones((3, 3), np.uint8)) > 0.98
    return np.where(inside[..., None], patch, blurred)


def match_colour(
    patch: np.ndarray, behind: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Change the brightness and shift the mean colour towards the background behind the object."""
    gain, pull = generator.uniform(*BRIGHTNESS), generator.uniform(*COLOUR_PULL)
    red, green, blue, alpha = cv2.mean(patch)
    own = gain * np.array([red, green, blue]) / max(alpha, 1e-6)
    shift = (pull * (np.array(cv2.mean(behind)[:3]) - own)).astype(np.float32)
    opacity = patch[..., 3:]
    colour = patch[..., :3] * np.float32(gain) + shift * opacity
    bounded = np.minimum(np.maximum(colour, 0), 255 * opacity)
    return np.concatenate([bounded, opacity], axis=2)
