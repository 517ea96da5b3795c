"""A cell: one training with one seed, its command, and the line that keeps its result."""

import functools
import hashlib
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from fvcore.common.config import CfgNode

from .result_file import append, results_in
from .training_run import REPOSITORY

CLASSIFICATION, DETECTION, ROBUSTNESS = (
    "tools/pretrain_imagenet.py",
    "train_net.py",
    "tools/evaluate_robustness.py",
)


@dataclass(frozen=True)
class Cell:
    """The training behind one place of a table.

    Args:
        name: data set, network and, at small scale, depth; its training's folder has this name.
        script: path of the script in the repository.
        config: yaml file in the repository.
        data: name of the data, see `small.py`; "" for the sets in DETECTRON2_DATASETS.
        opts: KEY=VALUE pairs.
        learning_rates: SOLVER.BASE_LR, descending. Seed 1 tries them until accuracy falls; the
            other seeds take its best, or the next smaller one that converges. () takes the
            config's.
        converges_at: lowest top-1 in percent; a training below it has not converged.
        weights: the cell whose backbone.pth (ROBUSTNESS: whose model_final.pth) it starts from.
        processes: the value of --num-gpus; 0 leaves the flag out.
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
    """The folders of results (small, in the repository), trainings and data (large, not in it)."""

    results: Path
    output: Path
    data: Path

    def result(self, cell: Cell) -> Path:
        """The file of a data set and a kind of network, as fashion_mnist/isonet.jsonl."""
        *data, network = re.sub(r"/depth\d+$", "", cell.name).split("/")
        kind = re.match(r"\D+|.+", network)[0].rstrip("_-")
        return self.results.joinpath(*data, f"{kind}.jsonl")

    def training(self, cell: Cell, seed: int, rate: float | None = None) -> Path:
        folder = self.output / cell.name / f"seed{seed}"
        return folder if rate is None else folder / f"rate{rate:g}"

    def weights(self, cell: Cell, seed: int) -> Path:
        """The training of `cell` whose result counts."""
        result = read_result(self, cell, seed) or {}
        return self.training(cell, seed, result.get("learning_rate"))

    def lock(self, cell: Cell, seed: int) -> Path:
        """The file that a process locks while it runs this cell."""
        return self.results / f"{cell.name}/seed{seed}.lock".replace("/", "-")


def settings(cell: Cell) -> dict:
    """What determines a training's result, with the content of its yaml, as JSON returns it.

    The learning rates are not in it: each attempt has its own, and a longer list adds attempts.
    """
    keys = ("script", "config", "data", "converges_at", "processes")
    return {key: getattr(cell, key) for key in keys} | {
        "opts": list(cell.opts),
        "yaml": _fingerprint(cell.config),
        "weights": settings(cell.weights) if cell.weights else None,
    }


@functools.cache
def _fingerprint(config: str) -> str:
    """A hash of a yaml and its bases, without their comments."""
    content = CfgNode.load_yaml_with_base(str(REPOSITORY / config))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_result(folders: Folders, cell: Cell, seed: int) -> dict | None:
    """The latest stored result of this cell with its present settings and weights, or None.

    Raises:
        ValueError: the file has a line that is no result.
    """
    stored = results_in(folders.result(cell)).get((cell.name, seed))
    if not stored:
        return None
    now = made_with(folders, cell, seed)
    latest_first = reversed(stored)
    return next((r for r in latest_first if all(r[k] == now[k] for k in now)), None)


def weights_rate(folders: Folders, cell: Cell, seed: int) -> float | None:
    """The learning rate of the training that a cell starts from; None without one."""
    before = read_result(folders, cell.weights, seed) if cell.weights else None
    return before["learning_rate"] if before else None


def made_with(folders: Folders, cell: Cell, seed: int) -> dict:
    """The settings of a training, and the rate of the weights that it starts from."""
    rate = weights_rate(folders, cell, seed)
    return {"settings": settings(cell), "weights_learning_rate": rate}


def write_result(folders: Folders, cell: Cell, seed: int, result: dict) -> None:
    """Append `result` and what it was made with: the present settings unless it names others."""
    own = {"cell": cell.name, "seed": seed}
    line = own | result | own
    for key, value in made_with(folders, cell, seed).items():
        line.setdefault(key, value)
    append(folders.result(cell), line)


def arguments(cell: Cell, seed: int, folders: Folders, data: list[str], rate: float | None) -> list:
    """The arguments of the cell's script."""
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
    """The command line that runs the same training."""
    return shlex.join(["python", cell.script, *words])
