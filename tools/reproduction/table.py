"""A table: its rows, what the paper prints there, and the cells that repeat them."""

from dataclasses import dataclass, replace

from .cells import Cell


@dataclass(frozen=True)
class Row:
    """One row: cells by column, None where the table has no figure there.

    Args:
        paper: what the paper prints, by column; "" where it prints nothing.
    """

    label: str
    cells: tuple[Cell | None, ...]
    paper: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table at one scale; `before` are cells whose weights others start from."""

    name: str
    title: str
    columns: tuple[str, ...]
    measures: tuple[str, ...]
    rows: tuple[Row, ...]
    before: tuple[Cell, ...] = ()


def select_rows(table: Table, rows: list[str] | None, columns: list[str] | None) -> Table:
    """The table with those rows and columns only whose names hold one of the texts.

    Raises ValueError where none does.
    """
    chosen = [row for row in table.rows if not rows or any(text in row.label for text in rows)]
    if not chosen:
        labels = ", ".join(repr(row.label) for row in table.rows)
        raise ValueError(f"{table.name} has no row {rows}; its rows: {labels}")
    if columns and len(chosen[0].cells) == len(table.columns):
        chosen = [_with_columns(row, table.columns, columns) for row in chosen]
        kept = tuple(c for c in table.columns if any(text in c for text in columns))
        table = replace(table, columns=kept)
    return replace(table, rows=tuple(chosen))


def _with_columns(row: Row, names: tuple[str, ...], texts: list[str]) -> Row:
    kept = [i for i, name in enumerate(names) if any(text in name for text in texts)]
    return replace(
        row, cells=tuple(row.cells[i] for i in kept), paper=tuple(row.paper[i] for i in kept)
    )


def jobs_of(tables: list[Table], seeds: int) -> list[tuple[Cell, int]]:
    """(cell, seed) of all tables, each once; first seeds first, so that a table fills evenly."""
    cells: dict[str, Cell] = {}
    for table in tables:
        for cell in [*table.before, *(c for row in table.rows for c in row.cells if c)]:
            cells.setdefault(cell.name, cell)
    needed = {cell.weights for cell in cells.values()}
    kept = [c for c in cells.values() if c.name in needed or c not in _only_before(tables)]
    return [(cell, seed) for seed in range(1, seeds + 1) for cell in kept]


def _only_before(tables: list[Table]) -> set[Cell]:
    shown = {cell for table in tables for row in table.rows for cell in row.cells}
    return {cell for table in tables for cell in table.before} - shown
