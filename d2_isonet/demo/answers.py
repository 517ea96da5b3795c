"""The server's answer for an image: its pixels, the objects found, and COCO json."""

import base64

import cv2
import numpy as np
from detectron2.structures import Instances

from d2_isonet.data.categories import Categories

from .outputs import images_json, results_of
from .streams import Pixels

# "Save picture" uses these pixels, so that they keep their full colour resolution.
_JPEG = [
    *(cv2.IMWRITE_JPEG_QUALITY, 95),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
]


def answer_of(pixels: Pixels, found: Instances, categories: Categories, seconds: float) -> dict:
    """The answer for one image, ready for json.

    Args:
        found: on the CPU, in pixel coordinates of `pixels`.
        seconds: time of the detector.
    """
    height, width = pixels.bgr.shape[:2]
    image = {"id": 1, "file_name": "", "width": width, "height": height}  # the page has the name
    _, jpeg = cv2.imencode(".jpg", pixels.bgr, _JPEG)
    coco = images_json([image], categories)
    coco["annotations"] = [
        {"id": number, "iscrowd": 0, "area": result["bbox"][2] * result["bbox"][3], **result}
        for number, result in enumerate(results_of(found, 1, categories), start=1)
    ]
    return {
        "width": width,
        "height": height,
        "note": pixels.note,
        "seconds": round(seconds, 3),
        "picture": "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode(),
        "objects": _objects(found),
        "coco": coco,
    }


def _objects(found: Instances) -> list[dict]:
    """Class index, score, box (x0, y0, x1, y1) and outlines [x, y, x, y, ...] of each object."""
    columns = (found.pred_classes.tolist(), found.scores.tolist(), found.pred_boxes.tensor.tolist())
    masks = found.pred_masks.numpy() if found.has("pred_masks") else [None] * len(found)
    return [
        {"class": index, "score": score, "box": box, "outlines": _outlines(mask)}
        for index, score, box, mask in zip(*columns, masks, strict=True)
    ]


def _outlines(mask: np.ndarray | None) -> list[list[int]]:
    """The edges of a mask (H, W), bool, and of its holes; the even-odd rule fills them."""
    if mask is None:
        return []
    edges, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [edge.reshape(-1).tolist() for edge in edges]
