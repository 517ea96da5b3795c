"""Times ways to do the same thing in turn, measures their memory, and shows both as a table."""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from tabulate import tabulate

Function = Callable[[], object]


@dataclass
class Comparison:
    """One row of a benchmark: the cost of ours and of the peer, repetition by repetition.

    Args:
        name: of the work, e.g. "R50, value and gradient".
        ours, peer: one value per repetition, in `unit`; ours[i] and peer[i] ran in succession.
        unit: "s", "MB", "images/s", ...
        limit: the largest allowed ratio ours / peer (the smallest, with more_is_better); None if
            nothing is promised.
        more_is_better: the unit is a speed.
        note: what a reader must know in addition: counted operations, sizes.
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
        """Whether the ratio is within the limit; None without a limit."""
        if self.limit is None:
            return None
        return self.ratio >= self.limit if self.more_is_better else self.ratio <= self.limit


def compare_seconds(
    name: str, ours: Function, peer: Function, options: argparse.Namespace, **row: Any
) -> Comparison:
    """The seconds of both, on the device of the options; `row` has further fields of the row."""
    return Comparison(name, *seconds_in_turn((ours, peer), options), **row)


def compare_memory(
    name: str, ours: Function, peer: Function, options: argparse.Namespace, **row: Any
) -> Comparison:
    """The peak megabytes of both, measured once; `row` has further fields of the row."""
    memory = [[peak_megabytes(function, options.device)] for function in (ours, peer)]
    return Comparison(name, *memory, unit="MB", **row)


def compare_speeds(name: str, images: int, seconds: list[list[float]], **row: Any) -> Comparison:
    """The images per second of both, which took `seconds`; `row` has further fields of the row."""
    speeds = [[images / taken for taken in side] for side in seconds]
    return Comparison(name, *speeds, unit="images/s", more_is_better=True, **row)


def seconds_in_turn(
    functions: Collection[Function], options: argparse.Namespace, warm_up: int = 1
) -> list[list[float]]:
    """Wall-clock seconds of each function, run A B A B ..., so that load affects all alike."""
    rounds = range(warm_up + options.repetitions)
    times = [[seconds_of(function, options.device) for function in functions] for _ in rounds]
    return [list(seconds) for seconds in zip(*times[warm_up:], strict=True)]


def seconds_of(function: Function, device: str = "cpu") -> float:
    """Wall-clock seconds of one call, including the work of the device."""
    _wait_for(device)
    start = time.perf_counter()
    function()
    _wait_for(device)
    return time.perf_counter() - start


def peak_megabytes(function: Function, device: str = "cpu") -> float:
    """The peak memory of PyTorch's allocator during one call, less the memory before it, in MB.

    On a CPU the profiler records every allocation; on a GPU the allocator reports its peak.
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
    return max(itertools.accumulate((step for _, step in steps), initial=0)) / 1e6


def _wait_for(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def table(rows: Iterable[Comparison]) -> str:
    """A line per row: name, ours, the peer, the ratio with its spread, and the limit."""
    lines = []
    for row in rows:
        medians = (_amount(statistics.median(side), row.unit) for side in (row.ours, row.peer))
        spread = f" ({min(row.ratios):.2f} to {max(row.ratios):.2f})" if len(row.ratios) > 1 else ""
        sign, answer = ">=" if row.more_is_better else "<=", "yes" if row.reached else "NO"
        limit = "" if row.limit is None else f"{sign} {row.limit:.2f}: {answer}"
        lines.append((row.name, *medians, f"{row.ratio:.2f}{spread}", limit, row.note))
    return tabulate(lines, ("", "ours", "peer", "ratio", "to reach", "note"), tablefmt="github")


def _amount(value: float, unit: str) -> str:
    return f"{value * 1000:.3g} ms" if unit == "s" and value < 1 else f"{value:.3g} {unit}"
