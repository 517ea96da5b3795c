"""One cut-out made ready to paste: scaled, mirrored, rotated, softened, coloured."""

import cv2
import numpy as np

from .library import Cutout

MAXIMUM_ENLARGEMENT = 2.2  # above it a cut-out looks blurred beside its background
MAXIMUM_ROTATION = 20.0  # degrees
EDGE_BLUR = (0.3, 0.7)  # standard deviation in pixels
BRIGHTNESS = (0.85, 1.15)
COLOUR_PULL = (0.0, 0.25)  # of the way to the mean colour behind the object


def transform(cutout: Cutout, long_side: float, generator: np.random.Generator) -> np.ndarray:
    """A patch (h, w, 4), float32: the cut-out with colour premultiplied by alpha in [0, 1].

    Its long side before rotation is long_side pixels, at most 2.2 times its own."""
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
    """Blur where alpha is not full, keep the inside sharp."""
    blurred = cv2.GaussianBlur(patch, (5, 5), deviation, borderType=cv2.BORDER_CONSTANT)
    inside = cv2.erode(patch[..., 3], np.ones((3, 3), np.uint8)) > 0.98
    return np.where(inside[..., None], patch, blurred)


def match_colour(
    patch: np.ndarray, behind: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Change brightness and pull the mean colour toward what lies behind the object."""
    gain, pull = generator.uniform(*BRIGHTNESS), generator.uniform(*COLOUR_PULL)
    red, green, blue, alpha = cv2.mean(patch)
    own = gain * np.array([red, green, blue]) / max(alpha, 1e-6)
    shift = (pull * (np.array(cv2.mean(behind)[:3]) - own)).astype(np.float32)
    opacity = patch[..., 3:]
    colour = patch[..., :3] * np.float32(gain) + shift * opacity
    bounded = np.minimum(np.maximum(colour, 0), 255 * opacity)
    return np.concatenate([bounded, opacity], axis=2)
