"""A benchmark's rows as a table for people and as json."""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from tabulate import tabulate

from .measure import Comparison

_REPOSITORY = Path(__file__).resolve().parents[2]


def describe_machine(device: str, threads: int) -> dict:
    """What a ratio was measured on; "summary" is a line for a person."""
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    facts = {
        "device": device,
        "name": name,
        "cpu_threads": threads,
        "cpu_cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
    }
    facts["summary"] = (
        f"{name}, {threads} CPU thread(s) of {facts['cpu_cores']}; torch {torch.__version__}; "
        f"commit {facts['commit']}. Medians; ratio: ours / peer, repetition by repetition "
        "(least to largest)"
    )
    return facts


def table(rows: Iterable[Comparison]) -> str:
    """One line a row: what, ours, the peer, the ratio with its spread, what was to be reached."""
    return tabulate([_line(row) for row in rows], headers="keys", tablefmt="github")


def _line(row: Comparison) -> dict[str, str]:
    least, most = min(row.ratios), max(row.ratios)
    spread = f" ({least:.2f} to {most:.2f})" if len(row.ratios) > 1 else ""
    return {
        "": row.name,
        "ours": _amount(statistics.median(row.ours), row.unit),
        "peer": _amount(statistics.median(row.peer), row.unit),
        "ratio": f"{row.ratio:.2f}{spread}",
        "to reach": _limit(row),
        "note": row.note,
    }


def _limit(row: Comparison) -> str:
    if row.limit is None:
        return ""
    sign = ">=" if row.more_is_better else "<="
    return f"{sign} {row.limit:.2f}: {'yes' if row.reached else 'NO'}"


def _amount(value: float, unit: str) -> str:
    if unit == "s" and value < 1:
        value, unit = value * 1000, "ms"
    return f"{value:.3g} {unit}"


def write_json(path: Path, subject: str, rows: Iterable[Comparison], machine: dict) -> None:
    """Everything of the rows, their medians, and the machine."""
    content = {
        "subject": subject,
        "machine": machine,
        "rows": [{**asdict(row), "ratio": row.ratio, "reached": row.reached} for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    """Of the working tree, marked where it differs from its commit."""
    command = ["git", "-C", str(_REPOSITORY), "describe", "--always", "--dirty", "--abbrev=7"]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"
