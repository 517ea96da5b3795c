"""Two ways to do one thing, timed in turn in one process; their memory."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch


@dataclass
class Comparison:
    """One row of a benchmark: what ours and the peer took, repetition by repetition.

    Args:
        name: what was done, e.g. "R50, value and gradient".
        ours, peer: of each repetition, in `unit`; ours[i] and peer[i] ran next to each other.
        unit: "s", "MB", "images/s", ...
        limit: what the ratio ours / peer must not exceed (or fall below, with more_is_better);
            None where nothing is promised.
        more_is_better: the unit is a speed.
        note: what a reader must know beside the numbers; operations counted, sizes.
    """

    name: str
    ours: list[float]
    peer: list[float]
    unit: str = "s"
    limit: float | None = None
    more_is_better: bool = False
    note: str = ""
    ratios: list[float] = field(init=False)

    def __post_init__(self):
        self.ratios = [a / b for a, b in zip(self.ours, self.peer, strict=True)]

    @property
    def ratio(self) -> float:
        """The median over the repetitions."""
        return statistics.median(self.ratios)

    @property
    def reached(self) -> bool | None:
        """Whether the ratio is within the limit; None without one."""
        if self.limit is None:
            return None
        return self.ratio >= self.limit if self.more_is_better else self.ratio <= self.limit


def seconds_in_turn(
    ours: Callable[[], object],
    peer: Callable[[], object],
    repetitions: int,
    device: str = "cpu",
    warm_up: int = 1,
) -> tuple[list[float], list[float]]:
    """Wall-clock seconds of `ours` and `peer`, A B A B ...: what slows the machine slows both."""
    for _ in range(warm_up):
        ours()
        peer()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repetitions):
        for function, seconds in zip((ours, peer), times, strict=True):
            seconds.append(seconds_of(function, device))
    return times


def seconds_of(function: Callable[[], object], device: str = "cpu") -> float:
    """Wall-clock seconds of one call, the device's work included."""
    _wait_for(device)
    start = time.perf_counter()
    function()
    _wait_for(device)
    return time.perf_counter() - start


def peak_megabytes(function: Callable[[], object], device: str = "cpu") -> float:
    """The most that PyTorch's allocator held during one call beyond what it held before, MB (1e6).

    On a CPU from the profiler's record of every allocation, on a GPU from the allocator itself.
    """
    if device != "cpu":
        _wait_for(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        _wait_for(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        function()
    events = profile.profiler.kineto_results.events()
    steps = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = peak = 0
    for _, step in steps:
        held += step
        peak = max(peak, held)
    return peak / 1e6


def _wait_for(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
