"""A cell: one training with one seed, its command, and the json that keeps its result."""

import functools
import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from fvcore.common.config import CfgNode

from .training_run import REPOSITORY

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
        data: name of the data, see `small.py`; "" for what DETECTRON2_DATASETS holds.
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
    """What decides a training's result, the content of its yaml included, as json gives it back.

    Not its learning rates: each attempt has its own, and those of a longer list are tried besides.
    """
    keys = ("script", "config", "data", "converges_at", "processes")
    return {key: getattr(cell, key) for key in keys} | {
        "opts": list(cell.opts),
        "yaml": _fingerprint(cell.config),
        "weights": settings(cell.weights) if cell.weights else None,
    }


@functools.cache
def _fingerprint(config: str) -> str:
    """Of a yaml and its bases; a comment does not change it."""
    content = CfgNode.load_yaml_with_base(str(REPOSITORY / config))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_result(folders: Folders, cell: Cell, seed: int) -> dict | None:
    """The stored result, or None where this cell was not run, or with other settings or weights.

    Raises:
        ValueError: the file is no result, with its path.
    """
    path = folders.result(cell, seed)
    if not path.is_file():
        return None
    result = _parsed(path)
    now = made_with(folders, cell, seed)
    return result if all(result[key] == value for key, value in now.items()) else None


def weights_rate(folders: Folders, cell: Cell, seed: int) -> float | None:
    """The learning rate of the training that a cell starts from; None without one."""
    before = read_result(folders, cell.weights, seed) if cell.weights else None
    return before["learning_rate"] if before else None


_NEEDED = {
    *("measures", "attempts", "learning_rate", "seconds", "commit", "machine", "torch"),
    *("settings", "weights_learning_rate"),
}


def _parsed(path: Path) -> dict:
    """What `write_result` wrote; a merge conflict, half a file or a nan is none."""
    try:
        result = json.loads(path.read_text(), parse_constant=_refuse)
        missing = _NEEDED - set(result if isinstance(result, dict) else ())
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        if not _are_measures(result["measures"]):
            raise ValueError(f"its measures are {result['measures']!r}")
    except ValueError as error:
        raise ValueError(f"{path} is no result ({error}); restore it, or remove it") from error
    return result


def _are_measures(measures: object) -> bool:
    numbers = (int, float, type(None))
    return isinstance(measures, dict) and all(isinstance(v, numbers) for v in measures.values())


def _refuse(constant: str) -> None:
    raise ValueError(f"it has a {constant}")


def made_with(folders: Folders, cell: Cell, seed: int) -> dict:
    """The settings of a training, and the rate of the weights that it starts from."""
    rate = weights_rate(folders, cell, seed)
    return {"settings": settings(cell), "weights_learning_rate": rate}


def write_result(folders: Folders, cell: Cell, seed: int, result: dict) -> None:
    """Keep `result` and what it was made with, that of now unless it says so; the file appears
    complete.
    """
    path = folders.result(cell, seed)
    result = {**made_with(folders, cell, seed), **result}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, result)


def write_whole(path: Path, content: dict) -> None:
    """A json file that appears complete or not at all."""
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
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
