"""The commands of cells, as a person would type them."""

from .cells import Cell, Folders, arguments, command, read_result
from .data import data_arguments


def print_commands(jobs: list[tuple[Cell, int]], folders: Folders) -> None:
    """One line a cell and learning rate; cells that have a result say so."""
    for cell, seed in jobs:
        done = " (has a result)" if read_result(folders, cell, seed) else ""
        print(f"# {cell.name}, seed {seed}{done}{_open_weights(cell, seed, folders)}")
        for rate in cell.learning_rates or (None,):
            words = arguments(cell, seed, folders, data_arguments(cell, folders.data), rate)
            print(command(cell, words))


def _open_weights(cell: Cell, seed: int, folders: Folders) -> str:
    """What the command below cannot know yet."""
    before = cell.weights
    if before is None or not before.learning_rates or read_result(folders, before, seed):
        return ""
    return f"; its weights: of the best rateR below {folders.training(before, seed)}"
