"""A page of text, tables, figures and images, written as one HTML file without any request."""

import base64
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from d2_isonet.utils.files import as_save_error
from d2_isonet.utils.messages import printable

Row = Mapping[str, Any] | Sequence[Any]
MISSING = "–"
DEFAULT_FORMAT = ".4g"  # of floats
FILTER_FROM = 13  # rows: longer tables get a field that filters them
_FOLDER = Path(__file__).resolve().parent


class Picture(NamedTuple):
    """An image, (H, W, 3) RGB uint8 or a Pillow image, and its caption."""

    image: np.ndarray | Image.Image
    caption: str = ""


@dataclass(frozen=True)
class Cell:
    """A value of a table with its own text, colour or explanation.

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


class Page:
    """Sections of text, tables, figures and images; a method that adds one returns the page.

    No text is trusted: all of it is escaped, and the page forbids every request and every script
    but its own, which its Content-Security-Policy names by digest.
    """

    def __init__(self, title: str, subtitle: str = ""):
        self.title = title
        self.subtitle = subtitle
        self._blocks: list[dict] = []

    def _add(self, kind: str, **content) -> "Page":
        self._blocks.append({"kind": kind, **content})
        return self

    def section(self, title: str, text: str = "") -> "Page":
        """A heading with an entry in the page's navigation, and a paragraph."""
        return self._add("section", title=title, text=text, anchor=f"s{len(self._blocks)}")

    def subsection(self, title: str, text: str = "") -> "Page":
        return self._add("subsection", title=title, text=text)

    def text(self, text: str) -> "Page":
        return self._add("text", text=text)

    def note(self, text: str, level: str = "info") -> "Page":
        """A highlighted sentence; level "info" or "warning"."""
        return self._add("note", text=text, level=level)

    def code(self, text: str, title: str = "") -> "Page":
        """Text in a fixed-width font; with a title it is folded until clicked."""
        return self._add("code", text=text, title=title)

    def numbers(self, values: Mapping[str, Any]) -> "Page":
        """A few large numbers with their names."""
        return self._add("numbers", items=[(name, shown(x)) for name, x in values.items()])

    def facts(self, values: Mapping[str, Any]) -> "Page":
        """Names and values, one pair per line."""
        return self._add("facts", items=[(name, shown(x)) for name, x in values.items()])

    def table(
        self,
        rows: Sequence[Row],
        columns: Iterable[str] | None = None,
        caption: str = "",
        formats: Mapping[str, str] | None = None,
        fold: str = "",
    ) -> "Page":
        """A table; a click on a column's name sorts it.

        Args:
            rows: mappings of column to value, or sequences; a value may be a `Cell`.
            columns: their order; required if rows are sequences.
            formats: column -> format of its floats (".4g").
            fold: a title under which the table is hidden until clicked.

        Raises:
            ValueError: rows are sequences, and their columns have no names or another number.
        """
        if columns is None:
            if not all(isinstance(row, Mapping) for row in rows):
                raise ValueError("rows that are not mappings need columns=[names]")
            columns = dict.fromkeys(key for row in rows for key in row)
        columns = list(columns)
        float_formats = [(formats or {}).get(name, DEFAULT_FORMAT) for name in columns]
        cells = [list(map(_cell, _values(row, columns), float_formats)) for row in rows]
        heads = [
            (name, all(row[i]["is_number"] or row[i]["sort"] is None for row in cells))
            for i, name in enumerate(columns)
        ]
        has_filter = len(cells) >= FILTER_FROM
        return self._add("table", rows=cells, columns=heads, has_filter=has_filter,
                         caption=caption, fold=fold)  # fmt: skip

    def figure(self, figure: Figure, caption: str = "") -> "Page":
        return self._add("figure", uri=figure_uri(figure), caption=caption)

    def images(self, pictures: Iterable[Picture], caption: str = "", max_side: int = 960) -> "Page":
        """A gallery: a click enlarges an image, arrow keys show the next one, Esc closes it."""
        items = [(image_uri(p.image, max_side), p.caption) for p in pictures]
        return self._add("images", items=items, caption=caption)

    def html(self) -> str:
        environment = Environment(
            loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True, finalize=_finalized,
        )  # fmt: skip
        script, style = ((_FOLDER / name).read_text("utf-8") for name in ("page.js", "page.css"))
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        return environment.get_template("page.html").render(
            title=self.title, subtitle=self.subtitle, blocks=self._blocks, style=style,
            script=script, script_digest=digest,
        )  # fmt: skip

    def write(self, path: Path) -> Path:
        """Write the page and return its path; a failed write raises SaveError."""
        with as_save_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.html(), encoding="utf-8", errors="replace")
        return path


def _values(row: Row, columns: list[str]) -> Sequence[Any]:
    if isinstance(row, Mapping):
        return [row.get(column) for column in columns]
    if len(row) != len(columns):
        raise ValueError(f"a row of {len(row)} values for {len(columns)} columns: {row!r}")
    return row


def _cell(value: Any, float_format: str) -> dict:
    """The template's variables for a cell; "sort" is a number, a text, or None."""
    cell = value if isinstance(value, Cell) else Cell(value)
    is_missing = _is_missing(cell.value)
    is_number = isinstance(cell.value, int | float) and not is_missing
    sort = repr(float(cell.value)) if is_number else str(cell.value)
    text = cell.text or shown(cell.value, float_format)
    return {"text": text, "sort": None if is_missing else sort, "is_number": is_number,
            "kind": cell.kind, "hint": cell.hint}  # fmt: skip


def shown(value: Any, float_format: str = DEFAULT_FORMAT) -> str:
    """The text of a value: integers in groups of three digits, a dash for None and NaN."""
    if _is_missing(value):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    return format(value, float_format) if isinstance(value, float) else str(value)


def _finalized(value: Any) -> Any:
    """What the page shows of a value; the script and the style of the page stay as they are."""
    return printable(value, "log") if type(value) is str else value


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def plain_text(text: str) -> str:
    """`text` with its $ escaped: matplotlib reads what two of them enclose as a formula."""
    return printable(text, "log").replace("$", r"\$")


def figure_uri(figure: Figure) -> str:
    """The data URI of a figure as SVG: the same bytes for the same figure."""
    file = io.BytesIO()
    # "tight" draws the figure twice; a layout engine has arranged it already
    box = None if figure.get_layout_engine() else "tight"
    # text as paths: the reader's machine needs no font
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "page"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, bbox_inches=box)
    return _data_uri("image/svg+xml", file.getvalue())


def image_uri(image: np.ndarray | Image.Image, max_side: int) -> str:
    """The data URI of an image as JPEG, reduced if a side is longer than `max_side` pixels.

    Args:
        image: (H, W, 3) RGB uint8, or a Pillow image.
    """
    pillow = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    reduced = pillow.convert("RGB")  # a copy
    reduced.thumbnail((max_side, max_side))
    file = io.BytesIO()
    reduced.save(file, format="JPEG", quality=85)
    return _data_uri("image/jpeg", file.getvalue())


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
