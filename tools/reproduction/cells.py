"""A cell: one training with one seed, its command, and the json that keeps its result."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CLASSIFICATION, DETECTION, ROBUSTNESS = (
    "tools/pretrain_imagenet.py",
    "train_net.py",
    "tools/evaluate_robustness.py",
)


@dataclass(frozen=True)
class Cell:
    """What is run for one place of a table.

    Args:
        name: where its results lie below the results folder; cells of one name are one.
        script: path of the script in the repository.
        config: yaml file in the repository.
        data: name of the data, see `data.py`; "" for what DETECTRON2_DATASETS holds.
        opts: KEY=VALUE pairs.
        learning_rates: SOLVER.BASE_LR, tried in order until the training converges; () takes the
            config's.
        weights: name of the cell whose backbone.pth (ROBUSTNESS: whose model) it starts from.
        iterations: SOLVER.MAX_ITER where known, for the time left.
    """

    name: str
    script: str
    config: str
    data: str = ""
    opts: tuple[str, ...] = ()
    learning_rates: tuple[float, ...] = ()
    weights: str = ""
    processes: int = 0


@dataclass(frozen=True)
class Folders:
    """Where results (small, kept), trainings and data (large, not kept) lie."""

    results: Path
    output: Path
    data: Path

    def result(self, cell: Cell, seed: int) -> Path:
        return self.results / cell.name / f"seed{seed}.json"

    def training(self, name: str, seed: int) -> Path:
        return self.output / name / f"seed{seed}"


def read_result(folders: Folders, cell: Cell, seed: int) -> dict | None:
    """The stored result, or None where this cell was not run."""
    path = folders.result(cell, seed)
    return json.loads(path.read_text()) if path.is_file() else None


def write_result(folders: Folders, cell: Cell, seed: int, result: dict) -> None:
    path = folders.result(cell, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(path)


def arguments(cell: Cell, seed: int, folders: Folders, data: list[str], rate: float | None) -> list:
    """The command line behind the script's name."""
    words = ["--config-file", cell.config]
    if cell.processes:
        words += ["--num-gpus", str(cell.processes)]
    words += data
    if cell.weights:
        file = folders.training(cell.weights, seed) / "backbone.pth"
        words.append(f"MODEL.WEIGHTS={file}")
    words += [*cell.opts, *([] if rate is None else [f"SOLVER.BASE_LR={rate:g}"])]
    return [*words, f"SEED={seed}", f"OUTPUT_DIR={folders.training(cell.name, seed)}"]


def command(cell: Cell, words: list[str]) -> str:
    """What a person types to run the same."""
    return shlex.join(["python", cell.script, *words])
