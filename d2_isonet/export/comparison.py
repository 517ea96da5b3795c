"""Differences between the outputs of an export and of the original, on the same images."""

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, pairwise_iou
from tabulate import tabulate

Outputs = dict[str, torch.Tensor]
# Largest "share" that passes. docs/export.md has measured values.
TOLERANCES = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.2, "int8": 0.3}
_SAME_OBJECT = 0.5  # least IoU of two boxes of one class that are the same object
_COUNTS = ("objects, original", "objects, exported", "matched", "other first class", "mask pixels")
_NOTHING = (
    "Neither network found anything in these images: boxes, scores and masks were NOT compared. "
    "Give --images with objects in them, or export with a lower MODEL.ROI_HEADS.SCORE_THRESH_TEST"
)


def compare(original: Outputs, exported: Outputs, image: torch.Tensor, record: dict) -> dict:
    """The differences {quantity: number} of the outputs for an image (3, H, W).

    Quantities named "share" have no unit. The tolerance limits them, and only them.

    Args:
        record: of the export, see record.py.
    """
    if record["target"] == "detector":
        size, most = (image.shape[-2], image.shape[-1]), record["detections_per_image"]
        return compare_detections(original, exported, size, record["score_threshold"], most)
    is_classifier = record["target"] == "classifier"
    return (compare_logits if is_classifier else compare_features)(original, exported)


def compare_features(original: Outputs, exported: Outputs) -> dict[str, float]:
    """The largest difference of each feature, as a share of the feature's largest value."""
    return {f"share of {name}": _relative(x, exported[name]) for name, x in original.items()}


def _relative(x: torch.Tensor, y: torch.Tensor) -> float:
    return _largest(x - y) / max(_largest(x), 1e-12) if x.shape == y.shape else math.inf


def compare_logits(original: Outputs, exported: Outputs) -> dict[str, float]:
    """The largest differences of logits and probabilities, and how many top classes differ."""
    x, y = original["logits"], exported["logits"]
    return {
        "logits": _largest(x - y),
        "share of probability": _largest(x.softmax(1) - y.softmax(1)),
        "other first class": float((x.argmax(1) != y.argmax(1)).sum()),
    }


def compare_detections(
    original: Outputs, exported: Outputs, size: tuple[int, int], threshold: float, most: int
) -> dict[str, float]:
    """Differences of the objects that both networks found, and the scores of all others.

    An object that only one network found may have dropped below the score threshold in the other,
    or behind the last of the `most` objects that are kept. The networks differ at least by the
    distance of its score from that limit.

    Args:
        size: height and width of the image in pixels.
    """
    rows, columns = _match(original, exported)
    limit = max(_least_kept(x["scores"], threshold, most) for x in (original, exported))
    unmatched = [
        scores[[i for i in range(len(scores)) if i not in matched]]
        for scores, matched in ((original["scores"], rows), (exported["scores"], columns))
    ]
    a = {name: x[rows] for name, x in original.items()}
    b = {name: x[columns] for name, x in exported.items()}
    pixels = _largest(a["boxes"] - b["boxes"])
    numbers: dict[str, float] = {
        "objects, original": len(original["boxes"]),
        "objects, exported": len(exported["boxes"]),
        "matched": len(rows),
        "share of unmatched score": _largest(torch.cat(unmatched) - limit),
        "boxes, pixels": pixels,
        "share of box": pixels / max(size),
        "share of score": _largest(a["scores"] - b["scores"]),
    }
    return {**numbers, **_compare_masks(a, b, size)} if "masks" in a else numbers


def _match(original: Outputs, exported: Outputs) -> tuple[list[int], list[int]]:
    """Indices of overlapping pairs of one class, the best pair first; each object occurs once."""
    overlap = pairwise_iou(Boxes(original["boxes"]), Boxes(exported["boxes"]))
    overlap[original["classes"][:, None] != exported["classes"][None]] = 0
    rows: list[int] = []
    columns: list[int] = []
    for index in overlap.flatten().argsort(descending=True).tolist():
        row, column = divmod(index, overlap.shape[1])
        if overlap[row, column] < _SAME_OBJECT:
            break
        if row not in rows and column not in columns:
            rows.append(row)
            columns.append(column)
    return rows, columns


def _least_kept(scores: torch.Tensor, threshold: float, most: int) -> float:
    """The score above which a network keeps an object."""
    is_full = 0 <= most <= len(scores)
    return float(scores.min()) if is_full and len(scores) else threshold


def _compare_masks(a: Outputs, b: Outputs, size: tuple[int, int]) -> dict[str, float]:
    """The pixels that only one mask of a pair has, and their share of those that any has."""
    masks = [paste_masks_in_image(x["masks"], x["boxes"], tuple(size)).bool() for x in (a, b)]
    different = (masks[0] ^ masks[1]).sum((1, 2))
    union = (masks[0] | masks[1]).sum((1, 2)).clamp(min=1)
    least = 1 - float((different / union).max()) if len(union) else 1.0
    share = float(different.sum() / union.sum().clamp(min=1))
    return {"mask pixels": float(different.sum()), "least mask IoU": least, "share of mask": share}


def _largest(x: torch.Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0


def summarize(comparisons: list[dict[str, float]]) -> dict[str, float]:
    """Over all images: the sum of counts, the worst of other quantities. NaN is the worst."""
    summary = {}
    for name in dict.fromkeys(name for numbers in comparisons for name in numbers):
        values = [numbers[name] for numbers in comparisons if name in numbers]
        worst = sum if name in _COUNTS else min if name.startswith("least") else max
        summary[name] = math.nan if any(map(math.isnan, values)) else worst(values)
    return summary


def failures(summary: dict[str, float], tolerance: float) -> list[str]:
    """What is wrong with the export: shares above the tolerance, or no object to compare."""
    lines = [
        f"{name} differs by {value:.2g}, more than the tolerance {tolerance:g}"
        for name, value in summary.items()
        if name.startswith("share") and not value <= tolerance  # also NaN
    ]
    if all(summary.get(f"objects, {side}", 1) == 0 for side in ("original", "exported")):
        lines.append(_NOTHING)
    return lines


def format_summary(
    summary: dict[str, float], tolerance: float, seconds: dict[str, list[float]], sizes: dict
) -> str:
    """A table with a row per quantity, then latency and file size of both networks."""
    rows = [_row(name, value, tolerance) for name, value in summary.items()]
    original, exported = (statistics.median(seconds[side]) for side in ("original", "exported"))
    rows += [
        ("seconds per image, original", f"{original:.4f}", ""),
        ("seconds per image, exported", f"{exported:.4f}", ""),
        ("exported / original", f"{exported / original:.2f}", ""),
        *((f"MB of the {name}", f"{size / 1e6:.1f}", "") for name, size in sizes.items()),
    ]
    return tabulate(rows, headers=("", "largest", "tolerance"), disable_numparse=True)


def _row(name: str, value: float, tolerance: float) -> tuple[str, str, str]:
    digits = ".0f" if name in _COUNTS else ".4f" if name.startswith("least") else ".2g"
    verdict = f"{tolerance:g}: {'yes' if value <= tolerance else 'NO'}"
    return name, f"{value:{digits}}", verdict if name.startswith("share") else ""


def write_report(path: Path, differences: Mapping[str, float], **facts) -> None:
    """All numbers as json; NaN and infinity, which json does not have, become null."""
    finite = {name: x if math.isfinite(x) else None for name, x in differences.items()}
    content = {**facts, "differences": finite}
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
