"""The cells of a table: the text that each one shows, and the value by which it is sorted."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any] | Sequence[Any]
MISSING = "–"
DEFAULT_FORMAT = ".4g"  # of floats
FILTER_FROM = 13  # rows: longer tables get a field that filters them


@dataclass(frozen=True)
class Cell:
    """A value with its own text, colour or explanation.

    Attributes:
        value: the column is sorted by it; None is always last.
        text: the text of the cell; by default the value in the column's format.
        kind: "", "good", "bad", "muted".
        hint: the text that appears while the mouse rests on the cell.
    """

    value: Any
    text: str = ""
    kind: str = ""
    hint: str = ""


def table_of(
    rows: Sequence[Row], columns: Iterable[str] | None, formats: Mapping[str, str] | None
) -> dict:
    """The template's variables for a table; see `Page.table` for the arguments.

    Raises:
        ValueError: rows are sequences, and their columns have no names or another number.
    """
    if columns is None:
        if not all(isinstance(row, Mapping) for row in rows):
            raise ValueError("rows that are not mappings need columns=[names]")
        columns = dict.fromkeys(key for row in rows for key in row)
    names, formats = list(columns), formats or {}
    cells = [
        [
            _cell(value, formats.get(name, DEFAULT_FORMAT))
            for name, value in zip(names, _values(row, names), strict=True)
        ]
        for row in rows
    ]
    is_right = [
        all(row[i]["is_number"] or row[i]["sort"] is None for row in cells)
        for i in range(len(names))
    ]
    return {
        "rows": cells,
        "columns": list(zip(names, is_right, strict=True)),
        "has_filter": len(cells) >= FILTER_FROM,
    }


def _values(row: Row, columns: list[str]) -> Sequence[Any]:
    if isinstance(row, Mapping):
        return [row.get(column) for column in columns]
    if len(row) != len(columns):
        raise ValueError(f"a row of {len(row)} values for {len(columns)} columns: {row!r}")
    return row


def _cell(value: Any, float_format: str) -> dict:
    """The template's variables for a cell; "sort" is a number, a text, or None."""
    cell = value if isinstance(value, Cell) else Cell(value)
    is_number = isinstance(cell.value, int | float) and not _is_missing(cell.value)
    sort = repr(float(cell.value)) if is_number else str(cell.value)
    return {
        "text": cell.text or shown(cell.value, float_format),
        "sort": None if _is_missing(cell.value) else sort,
        "is_number": is_number,
        "kind": cell.kind,
        "hint": cell.hint,
    }


def shown(value: Any, float_format: str = DEFAULT_FORMAT) -> str:
    """The text of a value: integers in groups of three digits, a dash for None and NaN."""
    if _is_missing(value):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    return format(value, float_format) if isinstance(value, float) else str(value)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
