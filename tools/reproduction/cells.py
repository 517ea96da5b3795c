"""Cells, each one training with its command and stored results, and the tables they make up."""

import functools
import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fvcore.common.config import CfgNode
from torch.utils._pytree import tree_map_only

from .result_file import append, results_in
from .training_run import REPOSITORY

CLASSIFICATION, DETECTION = "tools/pretrain_imagenet.py", "train_net.py"
ROBUSTNESS = "tools/evaluate_robustness.py"


@dataclass(frozen=True)
class Cell:
    """The training behind one place of a table.

    Args:
        name: data set, network and, at small scale, depth; its training's folder has this name.
        learning_rates: SOLVER.BASE_LR, descending. Seed 1 tries them until accuracy falls; the
            other seeds take its best, or the next smaller one that converges. () takes the
            config's.
        converges_at: lowest top-1 in percent; a training below it has not converged.
        weights: the cell whose backbone.pth (ROBUSTNESS: whose model_final.pth) it starts from.
    """

    name: str
    script: str  # path in the repository
    config: str  # yaml file in the repository
    data: str = ""  # its name, see `small.py`; "" for the sets in DETECTRON2_DATASETS
    opts: tuple[str, ...] = ()  # KEY=VALUE pairs
    learning_rates: tuple[float, ...] = ()
    converges_at: float = 40.0  # "N/A stands for not converging or ... lower than 40", table 4
    weights: "Cell | None" = None
    processes: int = 0  # the value of --num-gpus; 0 leaves the flag out


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
    """A hash of what a yaml and its bases set. Comments, VERSION and "5" for "5.0" do not count."""
    content = CfgNode.load_yaml_with_base(str(REPOSITORY / config))
    content.pop("VERSION", None)
    content = tree_map_only(int, float, content)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def made_with(folders: Folders, cell: Cell, seed: int) -> dict:
    """The settings of a training, and the learning rate of the weights that it starts from."""
    before = read_result(folders, cell.weights, seed) if cell.weights else None
    rate = before["learning_rate"] if before else None
    return {"settings": settings(cell), "weights_learning_rate": rate}


def read_result(folders: Folders, cell: Cell, seed: int) -> dict | None:
    """The latest stored result of this cell with its present settings and weights, or None.

    Raises:
        UserError: the file has a line that is no result.
    """
    stored = results_in(folders.result(cell)).get((cell.name, seed))
    if not stored:
        return None
    now = made_with(folders, cell, seed)
    return next((r for r in reversed(stored) if all(r[key] == now[key] for key in now)), None)


def write_result(folders: Folders, cell: Cell, seed: int, result: dict) -> None:
    """Append `result` and what it was made with: the present settings unless it names others."""
    own = {"cell": cell.name, "seed": seed}
    line = own | result | own
    append(folders.result(cell), line | made_with(folders, cell, seed) | line)


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


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    label: str
    cells: tuple[Cell | None, ...]  # by column, None if the table has no figure there
    paper: tuple[str, ...]  # the paper's figures by column, "" if it prints none


@dataclass(frozen=True)
class Table:
    """A table at one scale; `measures` has one of each column's cells."""

    name: str
    title: str
    columns: tuple[str, ...]
    measures: tuple[str, ...]
    rows: tuple[Row, ...]

    def measured(self, separator: str = ", ") -> str:
        """The measures, each once."""
        return separator.join(dict.fromkeys(self.measures))


def select(table: Table, rows: list[str] | None, columns: list[str] | None) -> Table:
    """The table with only those rows and columns whose names contain one of the texts.

    A text that is a whole name selects this one alone. The name of the result ends in "-part", so
    that its files do not replace those of the whole table.
    """
    if not rows and not columns:
        return table
    chosen = [table.columns.index(name) for name in _named(table.columns, columns)]
    labels = _named([row.label for row in table.rows], rows)

    def kept(values: tuple) -> tuple:
        return tuple(values[i] for i in chosen)

    return Table(
        f"{table.name}-part",
        table.title,
        kept(table.columns),
        kept(table.measures),
        tuple(Row(r.label, kept(r.cells), kept(r.paper)) for r in table.rows if r.label in labels),
    )


def _named(names: Sequence[str], texts: list[str] | None) -> list[str]:
    def meant(name: str, text: str) -> bool:
        return name == text if text in names else text in name

    return [name for name in names if not texts or any(meant(name, text) for text in texts)]


def with_processes(table: Table, count: int) -> Table:
    """The table with `count` GPUs for every multi-GPU run (the configs rescale themselves)."""

    def changed(cell: Cell | None) -> Cell | None:
        if cell is None:
            return None
        return replace(cell, weights=changed(cell.weights), processes=cell.processes and count)

    rows = (replace(row, cells=tuple(map(changed, row.cells))) for row in table.rows)
    return replace(table, rows=tuple(rows))


def jobs_of(tables: list[Table], seeds: int) -> list[tuple[Cell, int]]:
    """Each (cell, seed) of the tables once, the cells whose weights others need first.

    Seed 1 of all comes before seed 2, so that a table fills evenly.
    """
    shown = [cell for table in tables for row in table.rows for cell in row.cells if cell]
    cells = dict.fromkeys([*(cell.weights for cell in shown if cell.weights), *shown])
    return [(cell, seed) for seed in range(1, seeds + 1) for cell in cells]
