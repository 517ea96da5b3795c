"""Reads the OUTPUT_DIR of a run; damaged and missing files are reported, not fatal."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from d2_isonet.config.yaml_files import read_yaml
from d2_isonet.engine.run_record import NAME as RECORDS
from d2_isonet.engine.run_record import read_run_records
from d2_isonet.utils.files import read_json
from d2_isonet.utils.messages import UserError

from .logs import METRICS, Log, Metrics, read_log, read_metrics

CONFIG = "config.yaml"
PREDICTIONS = {"detection": "coco_instances_results.json", "classification": "predictions.csv"}
_TEXTS = dict.fromkeys(("json_file", "image_root", "weights"), str)
_ABOUT = {**_TEXTS, "max_detections": int, "classes": list}


@dataclass
class Evaluation:
    """The last evaluation of one data set."""

    dataset: str
    # of per_class.json: weights; json_file, image_root, max_detections; or classes
    about: dict = field(default_factory=dict)
    # "bbox", "segm" or "classification" -> a row per class
    tasks: dict[str, list[dict]] = field(default_factory=dict)
    predictions: Path | None = None  # the file of all predictions


@dataclass
class Run:
    """What an output folder says about its run."""

    folder: Path
    name: str  # short, and unique in the report
    task: str  # "detection" or "classification"
    metrics: Metrics
    config: dict[str, Any]  # dotted key -> value; {} if there is no config.yaml
    log: Log
    records: list[dict]  # the entries of runs.json, oldest first
    evaluations: list[Evaluation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is missing or damaged, in sentences


def result_keys(runs: Sequence[Run]) -> list[str]:
    """Every quantity of the evaluations of any run."""
    return list(dict.fromkeys(key for run in runs for key in run.metrics.results()))


def evaluations_by_dataset(runs: Sequence[Run]) -> dict[str, dict[str, Evaluation]]:
    """Name of the data set -> name of the run -> its evaluation."""
    found: dict[str, dict[str, Evaluation]] = {}
    for run in runs:
        for evaluation in run.evaluations:
            found.setdefault(evaluation.dataset, {})[run.name] = evaluation
    return found


def read_run(folder: Path, name: str) -> Run:
    """Read an output folder.

    Raises:
        UserError: it does not exist, is a file, is empty, or has no run of this project.
    """
    _check_folder(folder)
    config, notes = _read_config(folder / CONFIG)
    is_classifier = config.get("MODEL.META_ARCHITECTURE") == "ImageClassifier"
    task = "classification" if is_classifier else "detection"
    metrics, log = read_metrics(folder / METRICS), read_log(folder / "log.txt")
    run = Run(folder, name, task, metrics, config, log, read_run_records(folder / RECORDS))
    if not run.records:
        notes.append(
            f"There is no {RECORDS} with the command, the commit and the environment: an earlier "
            "version or another project wrote this run."
        )
    run.evaluations = _read_evaluations(run, notes)
    run.notes = [*_progress(run), *run.metrics.notes, *notes]
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
        f"neither {METRICS} nor {CONFIG} nor inference/",
        f"there are runs in it: {' '.join(inside[:8])}" if inside else "",
    )


def _is_run(folder: Path) -> bool:
    """Whether a training or an evaluation has written into the folder."""
    return any((folder / name).exists() for name in (METRICS, CONFIG, "inference"))


def _read_config(file: Path) -> tuple[dict[str, Any], list[str]]:
    """The flat config and what is wrong with its file."""
    if not file.exists():
        return {}, [f"There is no {CONFIG}: the options of the run are unknown."]
    try:
        return flat(read_yaml(str(file))), []
    except (OSError, UserError) as error:
        return {}, [f"{error}. It is skipped."]


def flat(config: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as {"SOLVER.BASE_LR": 0.1, ...}; tuples become lists, as in yaml."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = _as_yaml(value)
    return values


def _as_yaml(value: Any) -> Any:
    return [_as_yaml(x) for x in value] if isinstance(value, tuple | list) else value


def _progress(run: Run) -> list[str]:
    """A note if the training has not reached its end."""
    total, steps = run.config.get("SOLVER.MAX_ITER"), run.metrics.steps
    if run.log.error:
        return [f"The run ended with an error: {run.log.error}"]
    if not steps or not isinstance(total, int):
        return []
    done = steps[-1]["iteration"] + 1
    if done >= total or (run.folder / "model_final.pth").exists():
        return []
    written = datetime.fromtimestamp((run.folder / METRICS).stat().st_mtime)
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


def _read_evaluations(run: Run, notes: list[str]) -> list[Evaluation]:
    """The evaluations in OUTPUT_DIR/inference; `notes` gets the files that cannot be read."""
    name, folder = PREDICTIONS[run.task], run.folder / "inference"
    read = [_read_evaluation(file, name, notes) for file in sorted(folder.glob("*/per_class.json"))]
    found = [evaluation for evaluation in read if evaluation]
    if not (folder / name).is_file():
        return found
    if not found:
        notes.append(
            "inference/ has predictions but no results per class: an earlier version or another "
            "project wrote them."
        )
        tested = run.config.get("DATASETS.TEST")
        dataset = str(tested[0]) if isinstance(tested, list) and tested else ""
        return [Evaluation(dataset, predictions=folder / name)]
    if len(found) == 1 and found[0].predictions is None:
        found[0].predictions = folder / name
    return found


def _read_evaluation(file: Path, predictions: str, notes: list[str]) -> Evaluation | None:
    try:
        content = read_json(file)
        tasks = {name: [_row(row) for row in rows] for name, rows in content.pop("tasks").items()}
        dataset = str(content["dataset"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        notes.append(f"{file} cannot be read and is skipped ({type(error).__name__}: {error}).")
        return None
    own = file.parent / predictions
    about = {key: content[key] for key, kind in _ABOUT.items() if type(content.get(key)) is kind}
    return Evaluation(dataset, about, tasks, own if own.is_file() else None)


def _row(row: dict) -> dict:
    """Names as text, and all other values as numbers or None."""
    numbers = {k: v if isinstance(v, int | float) else None for k, v in row.items()}
    names = {k: str(row[k]) for k in ("class", "taken_for") if row.get(k) is not None}
    return {"class": str(row["class"]), **numbers, **names}
