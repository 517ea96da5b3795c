"""A cell: one training with one seed, its command, and the json that keeps its result."""

import functools
import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from fvcore.common.config import CfgNode

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
        name: where its results lie below the results folder.
        script: path of the script in the repository.
        config: yaml file in the repository.
        data: name of the data, see `data.py`; "" for what DETECTRON2_DATASETS holds.
        opts: KEY=VALUE pairs.
        learning_rates: SOLVER.BASE_LR, descending: seed 1 tries them until accuracy falls, the
            others take its best, or the next smaller one that converges; () takes the config's.
        converges_at: least top-1 in percent; below it a training counts as not converging.
        weights: the cell whose backbone.pth (ROBUSTNESS: whose model_final.pth) it starts from.
        processes: --num-gpus; 0 does not name it.
    """

    name: str
    script: str
    config: str
    data: str = ""
    opts: tuple[str, ...] = ()
    learning_rates: tuple[float, ...] = ()
    converges_at: float = 40.0  # "N/A stands for not converging or ... lower than 40", table 4
    weights: "Cell | None" = None
    processes: int = 0


@dataclass(frozen=True)
class Folders:
    """Where results (small, kept), trainings and data (large, not kept) lie."""

    results: Path
    output: Path
    data: Path

    def result(self, cell: Cell, seed: int) -> Path:
        return self.results / cell.name / f"seed{seed}.json"

    def training(self, cell: Cell, seed: int, rate: float | None = None) -> Path:
        folder = self.output / cell.name / f"seed{seed}"
        return folder if rate is None else folder / f"rate{rate:g}"

    def weights(self, cell: Cell, seed: int) -> Path:
        """The training of `cell` whose result counts."""
        result = read_result(self, cell, seed) or {}
        return self.training(cell, seed, result.get("learning_rate"))

    def lock(self, cell: Cell, seed: int) -> Path:
        return self.result(cell, seed).with_suffix(".lock")


def settings(cell: Cell) -> dict:
    """What decides a cell's result, the content of its yaml included, as json gives it back."""
    keys = ("script", "config", "data", "converges_at", "processes")
    return {key: getattr(cell, key) for key in keys} | {
        "opts": list(cell.opts),
        "learning_rates": list(cell.learning_rates),
        "yaml": _fingerprint(cell.config),
        "weights": settings(cell.weights) if cell.weights else None,
    }


@functools.cache
def _fingerprint(config: str) -> str:
    """Of a yaml and its bases; a comment does not change it."""
    content = CfgNode.load_yaml_with_base(str(REPOSITORY / config))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_result(folders: Folders, cell: Cell, seed: int) -> dict | None:
    """The stored result, or None where this cell was not run, or with other settings."""
    path = folders.result(cell, seed)
    result = json.loads(path.read_text()) if path.is_file() else {}
    return result if result.get("settings") == settings(cell) else None


def write_result(folders: Folders, cell: Cell, seed: int, result: dict) -> None:
    """Keep `result` and the settings it was made with; the file appears complete."""
    path = folders.result(cell, seed)
    result = {**result, "settings": settings(cell)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(path)


def arguments(cell: Cell, seed: int, folders: Folders, data: list[str], rate: float | None) -> list:
    """The command line behind the script's name."""
    output = folders.training(cell, seed, rate)
    weights = folders.weights(cell.weights, seed) if cell.weights else None
    words = ["--config-file", cell.config, *data]
    if cell.script == ROBUSTNESS:
        words += ["--weights", str(weights / "model_final.pth"), "--output", str(output)]
        return [*words, "--seed", str(seed), *cell.opts]
    if cell.processes:
        words += ["--num-gpus", str(cell.processes)]
    if weights:
        words.append(f"MODEL.WEIGHTS={weights / 'backbone.pth'}")
    words += [*cell.opts, *([] if rate is None else [f"SOLVER.BASE_LR={rate:g}"])]
    return [*words, f"SEED={seed}", f"OUTPUT_DIR={output}"]


def command(cell: Cell, words: list[str]) -> str:
    """What a person types to run the same."""
    return shlex.join(["python", cell.script, *words])
