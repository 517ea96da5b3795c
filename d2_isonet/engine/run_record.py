"""Records command, code, machine and processes of every run in OUTPUT_DIR/runs.json."""

import argparse
import json
import logging
import os
import platform
import shlex
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import torch
from detectron2.utils import comm

from d2_isonet import __version__
from d2_isonet.utils.command_line import typed_command
from d2_isonet.utils.files import read_json, tolerate, write_text

logger = logging.getLogger(__name__)
NAME = "runs.json"
_SECONDS = 10  # time limit for git


def add_run_record(output_dir: str, args: argparse.Namespace) -> None:
    """Add this run to the list in OUTPUT_DIR/runs.json; only the main process writes.

    Every start is an entry: training, resumed training, evaluation. A failed read or write only
    logs a warning.
    """
    if not output_dir or not comm.is_main_process():
        return
    file = Path(output_dir, NAME)
    with tolerate(file, "This run is not recorded"):
        write_text(file, json.dumps([*read_run_records(file), run_record(args)], indent=1) + "\n")


def run_record(args: argparse.Namespace) -> dict:
    """Start time, command, code and environment of this process, as plain types."""
    kind = "evaluation" if args.eval_only else "resumed training" if args.resume else "training"
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "kind": kind,
        "command": shlex.join(typed_command()),
        "folder": os.getcwd(),
        "processes": comm.get_world_size(),
        "commit": commit_of(Path(__file__).resolve().parent),
        "environment": environment(),
    }


def environment() -> dict[str, str]:
    """The machine, and the versions on which the numbers depend."""
    import detectron2
    import torchvision

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "d2_isonet": __version__,
        **{x.__name__: x.__version__ for x in (detectron2, torch, torchvision)},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads a process",
        "gpu": ", ".join(gpus) or "none",
    }


def commit_of(folder: Path) -> str | None:
    """The git commit of a folder, plus " with changes" if files differ; None without git."""
    commit = _git(folder, "rev-parse", "HEAD")
    # an installed package may lie inside an unrelated repository
    if not commit or _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit} with changes" if changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of git; None if it fails or is not installed."""
    try:
        process = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=_SECONDS, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()


def read_run_records(file: Path) -> list[dict]:
    """The runs in a runs.json, oldest first. A damaged file gives none and a warning."""
    if not file.exists():
        return []
    try:
        records = read_json(file)
    except (OSError, ValueError) as error:
        logger.warning(f"{file} is damaged ({error}): its records of earlier runs are lost")
        return []
    return [x for x in records if isinstance(x, dict)] if isinstance(records, list) else []
