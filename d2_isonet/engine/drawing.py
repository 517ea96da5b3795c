"""Draws boxes, masks and labels on an image: detections, annotations, and the truth.

detectron2's Visualizer takes 0.07 to 0.28 s of a CPU core for 6 to 28 objects in 640 x 427 pixels,
ten times as much as this module, and a video has many frames.
"""

import colorsys
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.structures import Instances
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

from d2_isonet.utils.messages import UserError, printable

Colour = tuple[int, int, int]  # RGB, 0-255
_HUES = 12
_HUE_STEP = 5  # twelfths of the circle: consecutive classes look unlike
# (saturation, value) of the first 12 classes, of the next 12, ...
_STYLES = ((0.75, 0.95), (0.45, 1.0), (0.9, 0.7), (0.55, 0.8), (1.0, 1.0), (0.3, 0.9), (1.0, 0.5))
_LONGEST_LABEL = 200  # characters
_OPACITY = 0.45  # of a mask


def class_colour(index: int) -> Colour:
    """The colour of a class; the same in every picture and run."""
    style = index // _HUES % len(_STYLES)
    hue = (7 + index * _HUE_STEP + style / 2) % _HUES / _HUES  # the first one is blue
    red, green, blue = colorsys.hsv_to_rgb(hue, *_STYLES[style])
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_instances(bgr: np.ndarray, found: Instances, names: Sequence[str]) -> np.ndarray:
    """A copy of the image (H, W, 3), uint8, BGR, with detections on the CPU."""
    classes = found.pred_classes.tolist()
    labels = [
        f"{names[i]} {score:.0%}" for i, score in zip(classes, found.scores.tolist(), strict=True)
    ]
    masks = found.pred_masks.numpy() if found.has("pred_masks") else [None] * len(found)
    colours = [class_colour(index) for index in classes]
    boxes = found.pred_boxes.tensor.numpy()
    return _draw(bgr[:, :, ::-1], boxes, labels, colours, masks)[:, :, ::-1].copy()


def draw_objects(
    rgb: np.ndarray,
    objects: Sequence[dict],
    labels: Sequence[str],
    colours: Sequence[Colour],
    width: int,
) -> np.ndarray:
    """The image (H, W, 3), uint8, RGB, resized to `width`, with COCO annotations or detections.

    Each object has "bbox" and may have "segmentation" (polygons or RLE). Raises UserError if an
    RLE has another size than the image.
    """
    scale = width / rgb.shape[1]
    size = (max(1, round(rgb.shape[0] * scale)), width)
    boxes = np.array([x["bbox"] for x in objects], dtype=float).reshape(-1, 4) * scale
    boxes[:, 2:] += boxes[:, :2]
    masks = [_mask(x.get("segmentation"), rgb.shape[:2], size) for x in objects]
    return _draw(_resized(np.ascontiguousarray(rgb), size), boxes, labels, colours, masks)


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    method = cv2.INTER_AREA if size[1] < pixels.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(pixels, size[::-1], interpolation=method)


def _mask(segmentation: Any, size: tuple[int, int], drawn: tuple[int, int]) -> np.ndarray | None:
    """(H', W') bool at the size `drawn`, None if there is no usable mask."""
    if isinstance(segmentation, dict) and "counts" in segmentation:
        rle = segmentation
        if isinstance(rle["counts"], list):
            rle = coco_mask.frPyObjects(rle, *rle["size"])
    elif isinstance(segmentation, list) and segmentation and all(map(_is_polygon, segmentation)):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    else:
        return None
    mask = coco_mask.decode(rle)
    if mask.shape != size:
        raise UserError(
            f"a mask has {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[1]} x {size[0]}",
            "make the masks of the original image",
        )
    return _resized(255 * mask, drawn) > 127


def _is_polygon(points: Sequence[float]) -> bool:
    return len(points) >= 6 and len(points) % 2 == 0


def _draw(
    rgb: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[str],
    colours: Sequence[Colour],
    masks: Sequence[np.ndarray | None],
) -> np.ndarray:
    """A copy of the image with all objects, the large ones below the small ones."""
    canvas = np.array(rgb, order="C")
    order = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable")
    for i in order:
        if masks[i] is not None:
            _blend(canvas, masks[i], colours[i])
    picture = Image.fromarray(canvas)
    pen, shorter = ImageDraw.Draw(picture), min(picture.size)
    pen.font = _font(max(10, round(shorter / 32)))
    for i in order:
        pen.rectangle(boxes[i].tolist(), outline=colours[i], width=max(1, round(shorter / 250)))
    for i in order:
        _write(pen, boxes[i].tolist(), labels[i], colours[i])
    return np.asarray(picture)


def _blend(canvas: np.ndarray, mask: np.ndarray, colour: Colour) -> None:
    """Colour the pixels of a mask (H, W), bool, in place, and draw its edge."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return
    part, inside = (a[y : y + height, x : x + width] for a in (canvas, mask))
    blended = part[inside] * (1 - _OPACITY) + np.array(colour, dtype=np.float32) * _OPACITY
    part[inside] = blended.astype(np.uint8)
    edges, _ = cv2.findContours(
        inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y)
    )
    cv2.drawContours(canvas, edges, -1, colour, 1, cv2.LINE_AA)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has the letters of most alphabets."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _write(pen: ImageDraw.ImageDraw, box: Sequence[float], label: str, colour: Colour) -> None:
    """Write a label above the box, or inside its upper edge if the image ends there."""
    label = printable(label)[:_LONGEST_LABEL]  # Pillow cannot lay out control characters
    _, _, right, bottom = pen.textbbox((0, 0), label)
    width, height = right + 6, bottom + 4
    x = max(0, min(box[0], pen.im.size[0] - width))
    y = box[1] - height if box[1] >= height else box[1]
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]  # ITU-R BT.601
    pen.text((x + 3, y + 2), label, fill="black" if luma > 140 else "white")
