"""Reads the OUTPUT_DIR of a run; damaged and missing files are reported, not fatal."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from d2_isonet.engine.run_record import NAME as RECORDS
from d2_isonet.engine.run_record import read_run_records
from d2_isonet.utils.messages import UserError

from . import metrics
from .evaluations import Evaluation, read_evaluations

CONFIG = "config.yaml"
LOG_FILE = "log.txt"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LINE = re.compile(r"^\[[^\]]+\] (\S+?):? (DEBUG|INFO|WARNING|ERROR|CRITICAL): (.*)$")
_ARGUMENTS = "Command line arguments: "
_ENVIRONMENT = "Environment info"
_MAX_BYTES = 64 * 2**20  # read from the end of a log that grew for weeks


@dataclass
class Log:
    """
    Attributes:
        warnings: message -> how many times it was logged.
        error: the last line of a traceback that ends the log; "" without one.
        arguments, environment: of the last start, as text.
    """

    warnings: Counter[str] = field(default_factory=Counter)
    error: str = ""
    arguments: str = ""
    environment: str = ""


@dataclass
class Run:
    """
    Attributes:
        name: a short name, unique in the report.
        task: "detection" or "classification".
        config: nested dicts; {} if there is no config.yaml.
        records: the entries of runs.json, oldest first.
        notes: what is missing or damaged, in sentences.
    """

    folder: Path
    name: str
    task: str
    metrics: metrics.Metrics
    config: dict
    log: Log
    records: list[dict]
    evaluations: list[Evaluation]
    notes: list[str]


def result_keys(runs: Sequence[Run]) -> list[str]:
    """Every quantity of the evaluations of any run."""
    return list(dict.fromkeys(key for run in runs for key in run.metrics.results()))


def option(config: dict, key: str) -> Any:
    """The value of a key such as "SOLVER.MAX_ITER"; None if the config does not have it."""
    node: Any = config
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def read_run(folder: Path, name: str) -> Run:
    """Read an output folder.

    Raises:
        UserError: it does not exist, is a file, is empty, or has no run of this project.
    """
    _check_folder(folder)
    config, notes = _read_config(folder / CONFIG)
    run_metrics = metrics.read_metrics(folder / metrics.NAME)
    is_classifier = option(config, "MODEL.META_ARCHITECTURE") == "ImageClassifier"
    task = "classification" if is_classifier else "detection"
    tested = option(config, "DATASETS.TEST")
    named = tuple(map(str, tested)) if isinstance(tested, list) else ()
    evaluations, unread = read_evaluations(folder / "inference", task, named)
    records = read_run_records(folder / RECORDS)
    if not records:
        notes.append(
            f"There is no {RECORDS} with the command, the commit and the environment: an earlier "
            "version or another project wrote this run."
        )
    run = Run(
        folder, name, task, run_metrics, config, read_log(folder / LOG_FILE), records,
        evaluations, [],
    )  # fmt: skip
    run.notes = [*_progress(run), *run_metrics.notes, *notes, *unread]
    return run


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise UserError(f"{folder}: there is no such folder")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file", "give the OUTPUT_DIR of a run")
    if not any(folder.iterdir()):
        raise UserError(f"{folder} is empty: no run has written anything into it yet")
    if _is_run(folder):
        return
    inside = sorted(str(path) for path in folder.glob("*") if path.is_dir() and _is_run(path))
    raise UserError(
        f"{folder} is not the OUTPUT_DIR of train_net.py or d2-isonet pretrain: it has "
        f"neither {metrics.NAME} nor {CONFIG} nor inference/",
        f"there are runs in it: {' '.join(inside[:8])}" if inside else "",
    )


def _is_run(folder: Path) -> bool:
    """Whether a training or an evaluation has written into the folder."""
    return any((folder / name).exists() for name in (metrics.NAME, CONFIG, "inference"))


def _read_config(file: Path) -> tuple[dict, list[str]]:
    """The config and what is wrong with its file."""
    if not file.is_file():
        return {}, [f"There is no {CONFIG}: the options of the run are unknown."]
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).split("\n")[0]
        return {}, [f"{file} is not yaml of plain values and is skipped ({reason})."]
    if not isinstance(content, dict):
        return {}, [f"{file} has no keys and is skipped."]
    return content, []


def _progress(run: Run) -> list[str]:
    """A note if the training has not reached its end."""
    total, steps = option(run.config, "SOLVER.MAX_ITER"), run.metrics.steps
    if run.log.error:
        return [f"The run ended with an error: {run.log.error}"]
    if not steps or not isinstance(total, int):
        return []
    done = steps[-1]["iteration"] + 1
    if done >= total or (run.folder / "model_final.pth").exists():
        return []
    written = datetime.fromtimestamp((run.folder / metrics.NAME).stat().st_mtime)
    return [
        f"The training is not finished: iteration {done} of {total}, last written "
        f"{written:%Y-%m-%d %H:%M}. It is still running, or was stopped."
    ]


def names_of(folders: list[Path]) -> list[str]:
    """A name for each folder: as few of its last parts as tell it from the others."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    for number in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-number:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{'/'.join(p)} ({i})" for i, p in enumerate(parts, 1)]  # the same folder twice


def read_log(file: Path) -> Log:
    """The log of a run; empty if there is no file."""
    log = Log()
    if not file.is_file():
        return log
    lines = _text(file).split("\n")
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        if not match:
            continue
        level, message = match[2], match[3]
        if level == "WARNING":
            log.warnings[message] += 1
        if message.startswith(_ARGUMENTS):
            log.arguments, log.error = message.removeprefix(_ARGUMENTS), ""
        if message.startswith(_ENVIRONMENT):
            log.environment = _until_next_record(lines, number)
        if level == "ERROR":
            following = _until_next_record(lines, number)
            log.error = following.split("\n")[-1] if "Traceback" in following else message
    return log


def _text(file: Path) -> str:
    with open(file, "rb") as opened:
        opened.seek(max(0, file.stat().st_size - _MAX_BYTES))
        text = opened.read().decode("utf-8", errors="replace")
    return _COLOURS.sub("", text)


def _until_next_record(lines: list[str], start: int) -> str:
    end = start + 1
    while end < len(lines) and not _LINE.match(lines[end]):
        end += 1
    return "\n".join(lines[start + 1 : end]).strip()
