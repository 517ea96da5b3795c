"""The record of a data set: what it was made from, and whether it is whole."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .scales import Scale

STAMP_NAME = "cutouts.json"
PARTIAL_NAME = ".partial"
CACHE_NAME = "cache"  # what was downloaded; may be put there by hand
FORMAT = 2  # raise it when the same parameters give other pictures


def parameters_of(scale: Scale, seed: int, source: str) -> dict[str, Any]:
    """What decides every pixel, as plain types that survive a json file."""
    values = {"format": FORMAT, "source": source, "seed": seed, **asdict(scale)}
    return json.loads(json.dumps(values))


def is_complete(folder: Path, parameters: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether folder holds all named entries, made with exactly these parameters."""
    stamp = _read(folder)
    made = stamp.get("complete") is True and stamp.get("parameters") == parameters
    return made and all((folder / name).exists() for name in names)


def claim(folder: Path) -> Path:
    """Make folder ours and return an empty folder inside it to build in.

    Raises ValueError where it holds files that are not ours: they could be replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / STAMP_NAME
    if not stamp.exists():
        if any(entry.name != CACHE_NAME for entry in folder.iterdir()):
            raise ValueError(
                f"{folder} is not empty and was not made by this program "
                f"(no {STAMP_NAME} in it): name an empty or a new folder."
            )
        _write(folder, {"complete": False})
    partial = folder / PARTIAL_NAME
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    return partial


def publish(folder: Path, parameters: Mapping[str, Any], names: Sequence[str]) -> None:
    """Replace the named entries by those built in the partial folder; the stamp comes last.

    Killed in between, the data set is marked incomplete and the next run builds it again.
    """
    _write(folder, {"complete": False})
    for name in names:
        target = folder / name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        os.replace(folder / PARTIAL_NAME / name, target)
    (folder / PARTIAL_NAME).rmdir()
    _write(folder, {"complete": True, "parameters": dict(parameters)})


def _read(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / STAMP_NAME).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _write(folder: Path, stamp: Mapping[str, Any]) -> None:
    fresh = folder / (STAMP_NAME + ".new")
    fresh.write_text(json.dumps(stamp, indent=1) + "\n")
    os.replace(fresh, folder / STAMP_NAME)
