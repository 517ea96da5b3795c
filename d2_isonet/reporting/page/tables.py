"""What a table's cells show and what they are sorted by."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d2_isonet.utils.messages import UserError

MISSING = "–"
DEFAULT_FORMAT = ".4g"  # of floats
FILTER_FROM = 13  # rows: longer tables get a field that filters them


@dataclass(frozen=True)
class Cell:
    """A value with its own text, colour or explanation, where the column's format is not enough.

    Attributes:
        value: what the column is sorted by; None is always last.
        text: what is shown; by default the value in the column's format.
        kind: "", "good", "bad", "muted".
        hint: shown when the mouse rests on it.
    """

    value: Any
    text: str = ""
    kind: str = ""
    hint: str = ""


def table_of(
    rows: Iterable[Mapping | Sequence],
    columns: Iterable[str] | None,
    formats: Mapping[str, str] | None,
) -> dict:
    """What the template needs of a table: see `Page.table`.

    Raises:
        UserError: rows are sequences without names of columns, or of another length.
    """
    rows = list(rows)
    names = columns_of(rows, columns)
    cells = cells_of(rows, names, formats)
    is_right = [all(row[i]["is_number"] or row[i]["sort"] is None for row in cells)
                for i in range(len(names))]  # fmt: skip
    return {
        "rows": cells,
        "columns": list(zip(names, is_right, strict=True)),
        "has_filter": len(cells) >= FILTER_FROM,
    }


def columns_of(rows: Sequence[Mapping | Sequence], columns: Iterable[str] | None) -> list[str]:
    """The columns asked for, or every key of the rows in the order of appearance.

    Raises:
        UserError: rows are sequences and nobody says what the columns are called.
    """
    if columns is not None:
        return list(columns)
    if not all(isinstance(row, Mapping) for row in rows):
        raise UserError("rows that are no mappings need columns=[names]")
    return list(dict.fromkeys(key for row in rows for key in row))


def cells_of(
    rows: Sequence[Mapping | Sequence], columns: list[str], formats: Mapping[str, str] | None
) -> list[list[dict]]:
    """For each row and column a dict of text, sort (number, text or None), kind, hint.

    Raises:
        UserError: a row that is a sequence has more or fewer values than there are columns.
    """
    formats = formats or {}
    return [
        [
            _cell(value, formats.get(column, DEFAULT_FORMAT))
            for column, value in zip(columns, _values(row, columns), strict=True)
        ]
        for row in rows
    ]


def _values(row: Mapping | Sequence, columns: list[str]) -> list:
    if isinstance(row, Mapping):
        return [row.get(column) for column in columns]
    if len(row) != len(columns):
        raise UserError(f"a row of {len(row)} values for {len(columns)} columns: {row!r}")
    return list(row)


def _cell(value: Any, float_format: str) -> dict:
    cell = value if isinstance(value, Cell) else Cell(value)
    sort, is_number = _sort_value(cell.value)
    text = cell.text or shown(cell.value, float_format)
    return {
        "text": text, "sort": sort, "is_number": is_number, "kind": cell.kind, "hint": cell.hint,
    }  # fmt: skip


def shown(value: Any, float_format: str = DEFAULT_FORMAT) -> str:
    """A value as a reader sees it: numbers short, thousands apart, nothing as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    return format(value, float_format) if isinstance(value, float) else str(value)


def _sort_value(value: Any) -> tuple[str | None, bool]:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None, False
    if isinstance(value, int | float):
        return repr(float(value)), True
    return str(value), False
