"""The commands of cells, as a person would type them."""

from .cells import Cell, Folders, arguments, command, read_result
from .data import data_arguments


def print_commands(jobs: list[tuple[Cell, int]], folders: Folders) -> None:
    """One line a cell and learning rate; cells that have a result say so."""
    for cell, seed in jobs:
        done = " (has a result)" if read_result(folders, cell, seed) else ""
        print(f"# {cell.name}, seed {seed}{done}")
        for rate in cell.learning_rates or (None,):
            words = arguments(cell, seed, folders, data_arguments(cell, folders.data), rate)
            print(command(cell, words))
