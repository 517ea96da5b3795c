"""All isometry measurements of one network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from d2_isonet.isometry.measures import (
    ConvolutionIsometry,
    distribution,
    measure_convolution,
    residual_scales,
    shifts_by_stage,
)
from d2_isonet.isometry.signal_propagation import Signal, deviations, measure_signals
from d2_isonet.modeling.stages import label_of
from d2_isonet.utils.messages import UserError

from .networks import Network

_BINS, _HIGHEST = 60, 3.0  # of the histograms; they do not count larger values
_SIGNAL = ("rms", "norm", "gradient")  # the numbers of a Signal
_CONVOLUTION = ("name", "shape", "stride", "dilation", "groups", "smallest", "largest", "condition",
                "share_near_one", "penalty", "minimum", "excess")  # fmt: skip


@dataclass(frozen=True)
class Analysis:
    """The measurements of a network."""

    network: Network
    frequencies: int  # number per axis of each convolution's output
    convolutions: list[ConvolutionIsometry]  # in the order of the network
    shifts: Mapping[str, torch.Tensor]  # by stage
    scales: Mapping[str, torch.Tensor]  # the residual scales by block
    signals: list[Signal]  # at the input and at each block, over all images
    deviations: list[str]  # the blocks in which signals vanish or explode, a line each
    limit: float  # the factor above which they do

    def stages(self) -> dict[str, torch.Tensor]:
        """The singular values of all convolutions of a stage."""
        values: dict[str, list[torch.Tensor]] = {}
        for conv in self.convolutions:
            values.setdefault(conv.stage, []).append(conv.singular_values)
        return {stage: torch.cat(parts) for stage, parts in values.items()}


def analyze(network: Network, frequencies: int, limit: float, seed: int) -> Analysis:
    """Measure `network` and show the progress.

    Raises:
        UserError: it has no convolution.
    """
    if not network.convolutions:
        raise UserError(f"{network.title} has no convolution to analyze")
    layers = tqdm(network.convolutions.items(), "convolutions", leave=False, disable=None)
    convolutions = [measure_convolution(label_of(n), conv, frequencies) for n, conv in layers]
    images = tqdm(network.images, "images", leave=False, disable=None)
    passes = [measure_signals(network.blocks, network.forward, x, seed) for x in images]
    signals = [
        Signal(label_of(points[0].name), **{key: _rms(points, key) for key in _SIGNAL})
        for points in zip(*passes, strict=True)
    ]
    state = network.model.state_dict()
    scales = {label_of(name): value for name, value in residual_scales(state).items()}
    return Analysis(network, frequencies, convolutions, shifts_by_stage(state), scales, signals,
                    deviations(signals, limit), limit)  # fmt: skip


def _rms(points: Sequence[Signal], key: str) -> float:
    """The root mean square of a number over the images."""
    return math.sqrt(sum(getattr(point, key) ** 2 for point in points) / len(points))


def as_json(analysis: Analysis) -> dict:
    """The analysis in plain types, without the millions of singular values.

    None stands for a number that is not finite.
    """
    network = analysis.network
    content = {
        "network": network.title,
        "weights": network.weights,
        "images": f"{len(network.images)} {network.image_source}",
        "notes": network.notes,
        "frequencies": analysis.frequencies,
        "convolutions": [_convolution_json(conv) for conv in analysis.convolutions],
        "shifts": {stage: distribution(x) for stage, x in analysis.shifts.items()},
        "residual_scales": {block: x.tolist() for block, x in analysis.scales.items()},
        "signals": [vars(signal) for signal in analysis.signals],
        "limit": analysis.limit,
        "deviations": analysis.deviations,
    }
    return _finite(content)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _convolution_json(conv: ConvolutionIsometry) -> dict:
    values = conv.singular_values.float()
    counts = values.histc(_BINS, 0, _HIGHEST).int().tolist() if values.isfinite().all() else []
    histogram = {"low": 0.0, "high": _HIGHEST, "counts": counts}
    return {key: getattr(conv, key) for key in _CONVOLUTION} | {"histogram": histogram}
