"""Runs the training scripts as a user does, and shows the progress in their metrics.json."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[2]


def environment() -> dict:
    """The environment in which scripts find d2_isonet even if it is not installed."""
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def data_of_detection(folder: Path) -> list[str]:
    """The arguments of train_net.py for the COCO-format sets of prepare_cutouts.py."""
    words = []
    for split in ("train", "val"):
        words += [f"--{split}-json", str(folder / f"instances_{split}.json")]
        words += [f"--{split}-images", str(folder / split)]
    return words


def run_training(
    title: str, script: Path, config_file: Path, output_dir: Path, arguments: list, opts: list[str]
) -> dict:
    """Train from the start in `output_dir`, show the progress, and return the last metrics.

    The script's own output goes to output_dir/output.log; on failure its last lines are shown.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    metrics_file, log_file = output_dir / "metrics.json", output_dir / "output.log"
    metrics_file.unlink(missing_ok=True)  # detectron2 appends
    words = [script, "--config-file", config_file, *arguments, f"OUTPUT_DIR={output_dir}", *opts]
    command = [sys.executable, *map(str, words)]
    with open(log_file, "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
        _show_progress(title, process, output_dir)
    if process.returncode:
        lines = log_file.read_text().splitlines()
        print(f"{title} failed; the end of {log_file}:", *lines[-20:], sep="\n", file=sys.stderr)
        sys.exit(process.returncode)
    return read_metrics(metrics_file)


def read_metrics(metrics_file: Path) -> dict:
    """The last value of every metric in a metrics.json."""
    metrics: dict = {}
    if metrics_file.is_file():
        for line in metrics_file.read_text().splitlines():
            metrics.update(json.loads(line))
    return metrics


def _show_progress(title: str, process: subprocess.Popen, output_dir: Path) -> None:
    """Until the process ends, show its last iteration of those that its config asks for."""
    form = "{desc}: {percentage:3.0f}% |{bar:30}| {elapsed}, {remaining} left{postfix}"
    config, ended = output_dir / "config.yaml", False
    with tqdm(total=1, desc=title, bar_format=form, mininterval=1) as bar:
        while not ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
            ended = process.poll() is not None
            metrics = read_metrics(output_dir / "metrics.json")
            text = config.read_text() if config.is_file() else ""
            total = re.search(r"^\s*MAX_ITER: *(\d+)", text, re.MULTILINE)
            if total and "iteration" in metrics:
                bar.total = int(total[1])
                bar.n = min(metrics["iteration"] + 1, bar.total)
                bar.set_postfix_str(f"loss {metrics.get('total_loss', float('nan')):.2f}")
