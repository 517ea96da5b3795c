"""The tables of an analysis: rows of numbers for the terminal and the page."""

import math

from tabulate import tabulate

from d2_isonet.isometry.measures import ConvolutionIsometry, share_near_one

from .analysis import Analysis

NEAR = "near 1, %"
FORMATS = {"min": ".3f", "max": ".3f", "condition": ".3g", NEAR: ".1f", "excess": ".5g",
           "least": "g", "RMS": ".3g", "|y| / |x|": ".3g", "x before": ".3g", "gradient": ".3g",
           "x after": ".3g", "mean of b": ".3f", "deviation of b": ".3f"}  # fmt: skip


def convolution_rows(analysis: Analysis) -> list[dict]:
    """One a convolution."""
    return [
        {
            "convolution": conv.name,
            "weight": described(conv),
            "min": conv.smallest,
            "max": conv.largest,
            "condition": conv.condition,
            NEAR: 100 * conv.share_near_one,
            "excess": conv.excess,
            "least": conv.minimum,
        }
        for conv in analysis.convolutions
    ]


def described(conv: ConvolutionIsometry) -> str:
    """ "128x64 3x3 /2": outputs x inputs a group, kernel, and stride, dilation, groups but 1."""
    outputs, inputs, *kernel = conv.shape
    text = f"{outputs}x{inputs} {kernel[0]}x{kernel[1]}"
    for sign, pair in (("/", conv.stride), ("d", conv.dilation)):
        if pair != (1, 1):
            text += f" {sign}{pair[0]}" + ("" if pair[0] == pair[1] else f"x{pair[1]}")
    return text + (f" g{conv.groups}" if conv.groups > 1 else "")


def stage_rows(analysis: Analysis) -> list[dict]:
    """One a stage."""
    rows = []
    for stage, values in analysis.stages().items():
        convs = [conv for conv in analysis.convolutions if conv.stage == stage]
        shifts = analysis.shifts.get(stage)
        rows.append(
            {
                "stage": stage,
                "convolutions": len(convs),
                "min": values.min().item(),
                "max": values.max().item(),
                NEAR: 100 * share_near_one(values),
                "excess": sum(conv.excess for conv in convs),
                "mean of b": None if shifts is None else shifts.mean().item(),
                "deviation of b": None if shifts is None else shifts.std(correction=0).item(),
            }
        )
    return [_without_empty(row, rows) for row in rows]


def _without_empty(row: dict, rows: list[dict]) -> dict:
    return {k: v for k, v in row.items() if any(other[k] is not None for other in rows)}


def scale_rows(analysis: Analysis) -> list[dict]:
    """One a block that has a residual scale."""
    return [
        {"block": block, "scale": scale.mean().item()}
        | ({"min": scale.min().item(), "max": scale.max().item()} if len(scale) > 1 else {})
        for block, scale in analysis.scales.items()
    ]


def signal_rows(analysis: Analysis) -> list[dict]:
    """One a point of the chain; a factor is that of the block whose output the point is."""
    rows, before = [], None
    for signal in analysis.signals:
        rows.append(
            {
                "output of": signal.name,
                "RMS": signal.rms,
                "x before": _ratio(signal.rms, before and before.rms),
                "|y| / |x|": signal.norm,
                "gradient": signal.gradient,
                "x after": _ratio(before and before.gradient, signal.gradient),
            }
        )
        before = signal
    return rows


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    if numerator is None or not denominator:
        return None
    return numerator / denominator


def as_text(rows: list[dict]) -> str:
    """For the terminal."""
    shown = [
        {
            name: format(value, FORMATS.get(name, ".4g")) if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in rows
    ]
    numbers = [isinstance(value, int | float) for value in rows[-1].values()]
    align = ["right" if number else "left" for number in numbers]
    return tabulate(shown, headers="keys", disable_numparse=True, colalign=align)


def summary(analysis: Analysis) -> dict[str, str]:
    """A few numbers of the whole network."""
    convs = analysis.convolutions
    values = [x for x in analysis.stages().values()]
    total = sum(len(x) for x in values)
    near = sum(share_near_one(x) * len(x) for x in values) / total
    conditions = [conv.condition for conv in convs]
    return {
        "convolutions": str(len(convs)),
        "singular values": f"{min(x.min().item() for x in values):.3g} to "
        f"{max(x.max().item() for x in values):.3g}",
        "in 0.9 to 1.1": f"{100 * near:.1f} %",
        "rank-deficient": str(sum(math.isinf(x) for x in conditions)),
        "excess of the penalty": f"{sum(conv.excess for conv in convs):.4g}",
    }


def verdict(analysis: Analysis) -> str:
    """The rule, and what it found."""
    rule = (
        f"Rule: a factor above {analysis.limit:g} or below {1 / analysis.limit:g} across one block "
        "or from the first block's output to the last's."
    )
    if not analysis.deviations:
        return f"{rule} No signal vanishes or explodes."
    return f"{rule} {len(analysis.deviations)} found."
