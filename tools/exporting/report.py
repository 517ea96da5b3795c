"""The differences between original and export: the largest of all images, a table, a verdict."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from tabulate import tabulate

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
