"""A table: its rows, the figures that the paper prints, and the cells that reproduce them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .cells import Cell


@dataclass(frozen=True)
class Row:
    """One row: cells by column, None if the table has no figure there.

    Args:
        paper: the paper's figures by column, "" if it prints none.
    """

    label: str
    cells: tuple[Cell | None, ...]
    paper: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table at one scale.

    Args:
        measures: one, which every cell has, or one a column, all of the row's only cell.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    measures: tuple[str, ...]
    rows: tuple[Row, ...]


def select(table: Table, rows: list[str] | None, columns: list[str] | None) -> Table:
    """The table with only those rows and columns whose names contain one of the texts.

    A text that is a whole name selects this one alone. The name of the result ends in "-part", so
    that its files do not replace those of the whole table.
    """
    if not rows and not columns:
        return table
    chosen = [table.columns.index(name) for name in _named(table.columns, columns)]
    labels = _named([row.label for row in table.rows], rows)
    kept = tuple(
        replace(
            row,
            cells=_some(row.cells, chosen) if len(table.measures) == 1 else row.cells,
            paper=_some(row.paper, chosen),
        )
        for row in table.rows
        if row.label in labels
    )
    measures = table.measures if len(table.measures) == 1 else _some(table.measures, chosen)
    return replace(
        table,
        name=f"{table.name}-part",
        rows=kept,
        columns=_some(table.columns, chosen),
        measures=measures,
    )


def _named(names: Sequence[str], texts: list[str] | None) -> list[str]:
    def meant(name: str, text: str) -> bool:
        return name == text if text in names else text in name

    return [name for name in names if not texts or any(meant(name, text) for text in texts)]


def _some(values: tuple, chosen: list[int]) -> tuple:
    return tuple(values[i] for i in chosen)


def with_processes(table: Table, count: int) -> Table:
    """The table with `count` GPUs for every multi-GPU run (the configs rescale themselves)."""

    def changed(cell: Cell | None) -> Cell | None:
        if cell is None:
            return None
        processes = count if cell.processes else 0
        return replace(cell, weights=changed(cell.weights), processes=processes)

    rows = (replace(row, cells=tuple(map(changed, row.cells))) for row in table.rows)
    return replace(table, rows=tuple(rows))


def jobs_of(tables: list[Table], seeds: int) -> list[tuple[Cell, int]]:
    """Each (cell, seed) of the tables once, the cells whose weights others need first.

    Seed 1 of all comes before seed 2, so that a table fills evenly.
    """
    shown = [cell for table in tables for row in table.rows for cell in row.cells if cell]
    cells = dict.fromkeys([*(cell.weights for cell in shown if cell.weights), *shown])
    return [(cell, seed) for seed in range(1, seeds + 1) for cell in cells]
