"""Boxes, masks and names on an image."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
from detectron2.utils.visualizer import ColorMode, Visualizer
from pages.inline import plain_text

_FONT = 16  # pixels, of the names on large objects


def draw(
    pixels: np.ndarray,
    objects: Sequence[dict],
    names: Sequence[str],
    colours: Sequence[tuple],
    width: int,
) -> np.ndarray:
    """(H', width, 3) uint8: the image with boxes, masks and names.

    Args:
        pixels: (H, W, 3) RGB uint8.
        objects: COCO annotations or detections: bbox, maybe segmentation.
    """
    scale = width / pixels.shape[1]
    visualizer = Visualizer(pixels, SimpleNamespace(), scale, ColorMode.IMAGE)
    visualizer._default_font_size = _FONT / scale  # detectron2's is for larger images
    boxes = np.array([o["bbox"] for o in objects], dtype=float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    has_masks = bool(objects) and all(_is_mask(o.get("segmentation")) for o in objects)
    drawn = visualizer.overlay_instances(
        boxes=boxes,
        labels=[plain_text(name) for name in names],
        masks=[o["segmentation"] for o in objects] if has_masks else None,
        assigned_colors=list(colours),
    )
    return _of_width(drawn.get_image(), width)


def _is_mask(segmentation: object) -> bool:
    if isinstance(segmentation, dict):
        return "counts" in segmentation
    is_list = isinstance(segmentation, list) and bool(segmentation)
    return is_list and all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in segmentation)


def _of_width(image: np.ndarray, width: int) -> np.ndarray:
    """matplotlib's canvas may be a pixel wider or narrower; panels stand side by side."""
    image = image[:, :width]
    return np.pad(image, ((0, 0), (0, width - image.shape[1]), (0, 0)), mode="edge")
