"""Boxes, masks and names over a picture, each class in its own colour.

detectron2's Visualizer is not taken: for 6 to 28 objects in 640 x 427 pixels it needs 0.07 to
0.28 s of a CPU core, ten times as much as this, and videos have many frames.
"""

import colorsys
import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.structures import Instances
from PIL import Image, ImageDraw, ImageFont

_HUES = 12
_HUE_STEP = 5  # of twelfths of the circle: classes that follow each other look unlike
# (saturation, value) of the first 12 classes, of the next 12, ...
_STYLES = ((0.75, 0.95), (0.45, 1.0), (0.9, 0.7), (0.55, 0.8), (1.0, 1.0), (0.3, 0.9), (1.0, 0.5))
_MASK = 0.45  # share of a mask's colour in its pixels


def class_colour(index: int) -> tuple[int, int, int]:
    """The colour of a class, RGB, 0-255; the same in every picture and run."""
    style = index // _HUES % len(_STYLES)
    hue = (7 + index * _HUE_STEP + style / 2) % _HUES / _HUES  # the first one is blue
    red, green, blue = colorsys.hsv_to_rgb(hue, *_STYLES[style])
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(bgr: np.ndarray, found: Instances, names: Sequence[str]) -> np.ndarray:
    """A copy of the picture (H, W, 3), uint8, BGR, with what was found; large objects below.

    Args:
        found: on the CPU.
        names: of the classes.
    """
    canvas = bgr.copy()
    boxes = found.pred_boxes.tensor.numpy()
    order = np.argsort(-found.pred_boxes.area().numpy(), kind="stable")
    classes, scores = found.pred_classes.tolist(), found.scores.tolist()
    if found.has("pred_masks"):
        masks = found.pred_masks.numpy()
        for i in order:
            _blend(canvas, masks[i], class_colour(classes[i]))
    picture = Image.fromarray(canvas[:, :, ::-1])
    pen, font = ImageDraw.Draw(picture), _font(_text_size(picture.size))
    width = max(1, round(min(picture.size) / 250))
    for i in order:
        pen.rectangle(boxes[i].tolist(), outline=class_colour(classes[i]), width=width)
    for i in order:
        text = f"{names[classes[i]]} {scores[i]:.0%}"
        _write(pen, picture.width, boxes[i].tolist(), text, class_colour(classes[i]), font)
    return np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])


def _blend(canvas: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Colour the pixels of a mask (H, W), bool, in place, and draw its edge."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return
    part, inside = (a[y : y + height, x : x + width] for a in (canvas, mask))
    bgr = np.array(colour[::-1], dtype=np.float32)
    part[inside] = (part[inside] * (1 - _MASK) + bgr * _MASK).astype(np.uint8)
    edges, _ = cv2.findContours(
        inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y)
    )
    cv2.drawContours(canvas, edges, -1, colour[::-1], 1, cv2.LINE_AA)


def _text_size(size: tuple[int, int]) -> int:
    return max(10, round(min(size) / 32))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has the letters of most alphabets."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _write(
    pen: ImageDraw.ImageDraw,
    picture_width: int,
    box: list[float],
    text: str,
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont,
) -> None:
    """A label on the upper edge of a box, inside it where the picture ends above."""
    _, _, right, bottom = font.getbbox(text)
    width, height = right + 6, bottom + 4
    x = max(0, min(box[0], picture_width - width))
    y = box[1] - height if box[1] >= height else box[1]
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + 3, y + 2), text, fill=_readable_on(colour), font=font)


def _readable_on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever stands out (ITU-R BT.601 luma)."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)
