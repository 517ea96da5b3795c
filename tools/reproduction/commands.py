"""The commands of cells, as a person would type them."""

import os
import sys

from .cells import Cell, Folders, arguments, command, read_result
from .data import data_arguments


def print_commands(jobs: list[tuple[Cell, int]], folders: Folders) -> None:
    """One line a cell and learning rate; ends quietly where the reader (``| head``) has enough."""
    try:
        _print_commands(jobs, folders)
        sys.stdout.flush()
    except BrokenPipeError:  # what is left in the buffer goes nowhere, instead of failing at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_commands(jobs: list[tuple[Cell, int]], folders: Folders) -> None:
    """The lines; cells that have a result say so."""
    for cell, seed in jobs:
        done = " (has a result)" if read_result(folders, cell, seed) else ""
        print(f"# {cell.name}, seed {seed}{done}")
        for rate in cell.learning_rates or (None,):
            words = arguments(cell, seed, folders, data_arguments(cell, folders.data), rate)
            print(command(cell, words))
