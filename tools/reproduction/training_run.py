"""Runs the training scripts as a user does, and shows the progress in their metrics.json."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[2]


def run_tool(script: Path, *arguments: str | Path) -> None:
    """Run a script of this project; stop with its exit code if it fails."""
    code = subprocess.call([sys.executable, str(script), *map(str, arguments)], env=_environment())
    if code:
        sys.exit(code)


def run_training(
    title: str,
    script: Path,
    config_file: Path,
    output_dir: Path,
    arguments: list[str | Path],
    opts: list[str],
) -> dict:
    """Train from the start in `output_dir`, show the progress, and return the last metrics.

    The script's own output goes to output_dir/output.log; on failure its last lines are shown.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    metrics_file = output_dir / "metrics.json"
    metrics_file.unlink(missing_ok=True)  # detectron2 appends
    command = [sys.executable, str(script), "--config-file", str(config_file)]
    command += [*map(str, arguments), f"OUTPUT_DIR={output_dir}", *opts]
    log_file = output_dir / "output.log"
    with open(log_file, "w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=_environment()
        )
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
    form = "{desc}: {percentage:3.0f}% |{bar:30}| {elapsed}, {remaining} left{postfix}"
    with tqdm(total=1, desc=title, bar_format=form, mininterval=1) as bar:
        while process.poll() is None:
            _update(bar, output_dir)
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                continue
        _update(bar, output_dir)


def _update(bar: tqdm, output_dir: Path) -> None:
    metrics, total = read_metrics(output_dir / "metrics.json"), _max_iter(output_dir)
    if "iteration" not in metrics or not total:
        return
    bar.total = total
    bar.n = min(metrics["iteration"] + 1, total)
    bar.set_postfix_str(f"loss {metrics.get('total_loss', float('nan')):.2f}")


def _max_iter(output_dir: Path) -> int:
    """SOLVER.MAX_ITER of the config that the run has written; 0 before that."""
    path = output_dir / "config.yaml"
    lines = path.read_text().splitlines() if path.is_file() else []
    values = [line.split(":")[1] for line in lines if line.strip().startswith("MAX_ITER:")]
    return int(values[0]) if values else 0


def _environment() -> dict:
    """The environment in which scripts find d2_isonet even if it is not installed."""
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
