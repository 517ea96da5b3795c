"""Masks to COCO annotations: tight boxes, pixel areas, polygons on the pixel borders."""

from collections.abc import Sequence

import cv2
import numpy as np

SMALLEST_HOLE = 4  # pixels; a smaller hole is not worth a polygon


def box_of(mask: np.ndarray) -> list[int]:
    """[x, y, width, height] of a non-empty mask (H, W), in whole pixels."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]


def polygons_of(mask: np.ndarray, tolerance: float) -> list[list[float]]:
    """One polygon [x0, y0, x1, y1, ...] per connected part of a non-empty mask (H, W).

    tolerance is how far, in pixels, an outline may cut the stairs of a slanted edge. The corners
    lie on pixel borders, not on pixel centres: with tolerance 0 the rasterized polygons are the
    mask. COCO polygons have no holes, so a hole is joined to its outline by a cut of no width.
    Numbers are floats: detectron2 resizes coordinates in place, and integers would be cut off.
    """
    left, top, width, height = box_of(mask)
    inside = mask[top : top + height, left : left + width].astype(np.uint8)
    tripled = inside.repeat(3, axis=0).repeat(3, axis=1)
    contours, hierarchy = cv2.findContours(tripled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for index, contour in enumerate(contours):
        if hierarchy[0][index][3] >= 0:
            continue  # a hole: reached through its outline
        outline = _simplify(_pixel_borders(contour), tolerance)
        for hole in _holes(contours, hierarchy[0], index):
            outline = _join(outline, _simplify(hole, tolerance))
        polygons.append((outline + (left, top)).astype(float).reshape(-1).tolist())
    return polygons


def _pixel_borders(contour: np.ndarray) -> np.ndarray:
    """Outline of 3x3 blocks (their outermost sub-pixels) to corners of pixels: (K, 2)."""
    corners = (contour.reshape(-1, 2) + 1) // 3
    moved = np.any(corners != np.roll(corners, 1, axis=0), axis=1)
    return corners[moved]


def _holes(contours: Sequence[np.ndarray], hierarchy: np.ndarray, outline: int) -> list[np.ndarray]:
    holes, index = [], hierarchy[outline][2]
    while index >= 0:
        border = _pixel_borders(contours[index])
        if cv2.contourArea(border.astype(np.float32)) >= SMALLEST_HOLE:
            holes.append(border)
        index = hierarchy[index][0]
    return holes


def _simplify(corners: np.ndarray, tolerance: float) -> np.ndarray:
    simple = cv2.approxPolyDP(corners.astype(np.int32)[:, None], tolerance, closed=True)[:, 0]
    return simple if len(simple) >= 3 else corners


def _join(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Outline to the hole along the shortest cut, round the hole, and back along the cut."""
    distances = ((outline[:, None] - hole[None]) ** 2).sum(2)
    start, entry = np.unravel_index(distances.argmin(), distances.shape)
    around = np.roll(hole, -entry, axis=0)
    return np.concatenate([outline[: start + 1], around, around[:1], outline[start:]])
