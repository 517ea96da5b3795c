"""What an exported function returns, beside what the original does, on one image."""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, pairwise_iou
from tabulate import tabulate

Outputs = dict[str, torch.Tensor]
_SAME_OBJECT = 0.5  # intersection over union from which on two boxes of a class are one object


def comparison_of(target: str, threshold: float, most: int) -> Callable:
    """The function (original, exported, image) -> {quantity: number} for a target.

    "share" quantities are free of units and are what the tolerance is about.

    Args:
        threshold, most: the detector's MODEL.ROI_HEADS.SCORE_THRESH_TEST and
            TEST.DETECTIONS_PER_IMAGE.
    """
    if target == "detector":
        return lambda a, b, image: compare_detections(a, b, image.shape[-2:], threshold, most)
    compare = compare_logits if target == "classifier" else compare_features
    return lambda a, b, image: compare(a, b)


def compare_features(original: Outputs, exported: Outputs) -> dict[str, float]:
    """Of each feature the largest difference, as a share of its largest value."""
    return {f"share of {name}": _relative(x, exported[name]) for name, x in original.items()}


def _relative(x: torch.Tensor, y: torch.Tensor) -> float:
    if x.shape != y.shape:
        return float("inf")
    return _largest(x - y) / max(_largest(x), 1e-12)


def compare_logits(original: Outputs, exported: Outputs) -> dict[str, float]:
    """The largest differences of logits and of probabilities, and whether the first class stays."""
    x, y = original["logits"], exported["logits"]
    return {
        "logits": _largest(x - y),
        "share of probability": _largest(x.softmax(1) - y.softmax(1)),
        "other first class": float((x.argmax(1) != y.argmax(1)).sum()),
    }


def compare_detections(
    original: Outputs, exported: Outputs, size: tuple[int, int], threshold: float, most: int
) -> dict[str, float]:
    """Differences of the objects that both have found, and how sure the others were.

    An object that one of them lacks may have dropped below the score threshold, or below the last
    of the `most` that are kept; by what its score is above that, the two differ at least.

    Args:
        size: height and width of the image in pixels.
    """
    rows, columns = match(original, exported)
    numbers = {
        "objects, original": len(original["boxes"]),
        "objects, exported": len(exported["boxes"]),
    }
    numbers["matched"] = len(rows)
    floor = max(_floor(x["scores"], threshold, most) for x in (original, exported))
    lonely = [_lonely(original["scores"], rows), _lonely(exported["scores"], columns)]
    numbers["share of unmatched score"] = max(0.0, *(_largest(x - floor) for x in lonely))
    a = {name: x[rows] for name, x in original.items()}
    b = {name: x[columns] for name, x in exported.items()}
    numbers["boxes, pixels"] = _largest(a["boxes"] - b["boxes"])
    numbers["share of box"] = numbers["boxes, pixels"] / max(size)
    numbers["share of score"] = _largest(a["scores"] - b["scores"])
    if "masks" in a:
        numbers.update(_compare_masks(a, b, size))
    return numbers


def match(original: Outputs, exported: Outputs) -> tuple[list[int], list[int]]:
    """Pairs of detections of one class that overlap, the best first, each used once."""
    overlap = pairwise_iou(Boxes(original["boxes"]), Boxes(exported["boxes"]))
    overlap[original["classes"][:, None] != exported["classes"][None]] = 0
    rows, columns = [], []
    for index in overlap.flatten().argsort(descending=True).tolist():
        row, column = divmod(index, overlap.shape[1])
        if overlap[row, column] < _SAME_OBJECT:
            break
        if row not in rows and column not in columns:
            rows.append(row)
            columns.append(column)
    return rows, columns


def _floor(scores: torch.Tensor, threshold: float, most: int) -> float:
    is_full = 0 <= most <= len(scores)
    return float(scores.min()) if is_full and len(scores) else threshold


def _lonely(scores: torch.Tensor, matched: list[int]) -> torch.Tensor:
    is_alone = torch.ones(len(scores), dtype=torch.bool)
    is_alone[matched] = False
    return scores[is_alone]


def _compare_masks(a: Outputs, b: Outputs, size: tuple[int, int]) -> dict[str, float]:
    """Over all objects: the pixels that only one has, of those that at least one has."""
    masks = [paste_masks_in_image(x["masks"], x["boxes"], tuple(size)).bool() for x in (a, b)]
    different = (masks[0] ^ masks[1]).sum((1, 2))
    union = (masks[0] | masks[1]).sum((1, 2)).clamp(min=1)
    least = 1 - float((different / union).max()) if len(union) else 1.0
    share = float(different.sum() / union.sum().clamp(min=1))
    return {"mask pixels": float(different.sum()), "least mask IoU": least, "share of mask": share}


def _largest(x: torch.Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0


# largest share that is still equal; measured values are in docs/export.md
TOLERANCES = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.2, "int8": 0.3}
_COUNTS = ("objects, original", "objects, exported", "matched", "other first class", "mask pixels")
_NOTHING = (
    "Neither network found anything in these images: boxes, scores and masks were NOT compared. "
    "Give --images with objects in them, or export with a lower MODEL.ROI_HEADS.SCORE_THRESH_TEST"
)


def summarize(comparisons: list[dict[str, float]]) -> dict[str, float]:
    """Over all images: sums of counts, the worst of everything else; NaN is worse than anything."""
    names = dict.fromkeys(name for numbers in comparisons for name in numbers)
    return {name: _worst(name, [x[name] for x in comparisons if name in x]) for name in names}


def _worst(name: str, values: list[float]) -> float:
    if name in _COUNTS:
        return sum(values)
    if any(map(math.isnan, values)):
        return math.nan
    return min(values) if name.startswith("least") else max(values)


def failures(summary: dict[str, float], tolerance: float) -> list[str]:
    """What is wrong with the export: shares above the tolerance, nothing compared."""
    shares = {name: value for name, value in summary.items() if name.startswith("share")}
    lines = [
        f"{name} differs by {value:.2g}, more than the tolerance {tolerance:g}"
        for name, value in shares.items()
        if not value <= tolerance  # also NaN
    ]
    if all(summary.get(f"objects, {side}", 1) == 0 for side in ("original", "exported")):
        lines.append(_NOTHING)
    return lines


def format_summary(
    summary: dict[str, float], tolerance: float, seconds: dict[str, list[float]], sizes: dict
) -> str:
    """Every quantity in a row, then latency and file size of both."""
    rows = [_row(name, value, tolerance) for name, value in summary.items()]
    original, exported = (statistics.median(seconds[side]) for side in ("original", "exported"))
    rows.append(("seconds an image, original", f"{original:.4f}", ""))
    rows.append(("seconds an image, exported", f"{exported:.4f}", ""))
    rows.append(("exported / original", f"{exported / original:.2f}", ""))
    rows += [(f"MB of the {name}", f"{size / 1e6:.1f}", "") for name, size in sizes.items()]
    return tabulate(rows, headers=("", "largest", "tolerance"), disable_numparse=True)


def _row(name: str, value: float, tolerance: float) -> tuple[str, str, str]:
    text = f"{value:.0f}" if name in _COUNTS else f"{value:.2g}"
    if name.startswith("least"):
        text = f"{value:.4f}"
    if not name.startswith("share"):
        return name, text, ""
    return name, text, f"{tolerance:g}: {'yes' if value <= tolerance else 'NO'}"


def write_report(path: Path, differences: Mapping[str, float], **facts) -> None:
    """All numbers as json, which has no NaN and no infinity: null."""
    finite = {name: x if math.isfinite(x) else None for name, x in differences.items()}
    content = {**facts, "differences": finite}
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def progress(items: Iterable, text: str) -> Iterable:
    """The items, with a bar that leaves nothing behind."""
    from tqdm import tqdm

    return tqdm(items, text, unit="image", leave=False)
