"""Names of what can be wrong with one box or one segmentation."""

import math
from typing import Any

_POINT = 1.0  # pixels that a box may go beyond its image, for rounding, without a word

Size = tuple[float, float]  # width and height of an image in pixels


def box_problem(box: Any, size: Size | None) -> str | None:
    """The name of what is wrong with a box (x, y, width, height), or None."""
    if box is None:
        return "none"
    try:
        if isinstance(box, (str, dict)) or len(box) != 4 or not all(map(math.isfinite, box)):
            return "malformed"
    except (TypeError, OverflowError):
        return "malformed"
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return "empty"
    if size is None:
        return None
    if x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
        return "outside"
    beyond = max(-x, -y, x + width - size[0], y + height - size[1])
    return "beyond" if beyond > _POINT else None


def mask_problem(segmentation: object, size: Size | None) -> str | None:
    """The name of what is wrong with a segmentation, or None."""
    if segmentation is None or segmentation == []:
        return "none"
    if isinstance(segmentation, dict):
        return _rle_problem(segmentation, size)
    if not isinstance(segmentation, list):
        return "malformed"
    try:
        if not all(all(map(math.isfinite, polygon)) for polygon in segmentation):
            return "malformed"
        usable = [len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in segmentation]
    except (TypeError, OverflowError):
        return "malformed"
    if all(usable):
        return None
    return "some points" if any(usable) else "points"


def _rle_problem(rle: dict, size: Size | None) -> str | None:
    counts, shape = rle.get("counts"), rle.get("size")
    if not isinstance(shape, (list, tuple)) or len(shape) != 2 or not all(map(_is_count, shape)):
        return "malformed"
    pixels = _pixels_of(counts)
    if pixels is None or pixels > shape[0] * shape[1]:
        return "malformed"
    return "size" if size is not None and tuple(shape) != (size[1], size[0]) else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _pixels_of(counts: object) -> int | None:
    """The sum of run lengths; beyond the image's pixels pycocotools would write past its memory."""
    if isinstance(counts, list):
        return sum(counts) if all(map(_is_count, counts)) else None
    if isinstance(counts, str):
        counts = counts.encode("ascii", "replace")
    if not isinstance(counts, bytes):
        return None
    runs: list[int] = []
    value = shift = 0
    for byte in counts:  # pycocotools' rleFrString: 5 bits a byte, differences from the third run
        digit = byte - 48
        if not 0 <= digit < 64 or shift > 30:
            return None
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            value -= (1 << shift) if digit & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return sum(runs) if not shift and all(run >= 0 for run in runs) else None
