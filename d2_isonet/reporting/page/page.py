"""A page of text, tables, figures and images, written as one HTML file without any request."""

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from d2_isonet.utils.files import as_save_error

from .tables import Row, shown, table_of

_FOLDER = Path(__file__).resolve().parent


def plain_text(text: str) -> str:
    """`text` with its $ escaped: matplotlib reads what two of them enclose as a formula."""
    return text.replace("$", r"\$")


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


class Picture(NamedTuple):
    """An image, (H, W, 3) RGB uint8 or a Pillow image, and its caption."""

    image: np.ndarray | Image.Image
    caption: str = ""


class Page:
    """Sections of text, tables, figures and images; a method that adds one returns the page.

    No text is trusted: all of it is escaped, and the page forbids every request and every script
    but its own, which its Content-Security-Policy names by digest.
    """

    def __init__(self, title: str, subtitle: str = ""):
        self.title = title
        self.subtitle = subtitle
        self._blocks: list[dict] = []

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
        return self._add("numbers", items=_texts(values))

    def facts(self, values: Mapping[str, Any]) -> "Page":
        """Names and values, one pair per line."""
        return self._add("facts", items=_texts(values))

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
        """
        return self._add("table", caption=caption, fold=fold, **table_of(rows, columns, formats))

    def figure(self, figure: Figure, caption: str = "") -> "Page":
        return self._add("figure", uri=figure_uri(figure), caption=caption)

    def images(self, pictures: Iterable[Picture], caption: str = "", max_side: int = 960) -> "Page":
        """A gallery: a click enlarges an image, arrow keys show the next one, Esc closes it."""
        items = [(image_uri(p.image, max_side), p.caption) for p in pictures]
        return self._add("images", items=items, caption=caption)

    def html(self) -> str:
        environment = Environment(
            loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        script, style = ((_FOLDER / name).read_text("utf-8") for name in ("page.js", "page.css"))
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        return environment.get_template("page.html").render(
            title=self.title, subtitle=self.subtitle, blocks=self._blocks, style=style,
            script=script, script_digest=digest,
        )  # fmt: skip

    def write(self, path: Path | str) -> Path:
        """Write the page and return its path; a failed write raises SaveError."""
        path = Path(path)
        with as_save_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.html(), encoding="utf-8", errors="replace")
        return path

    def _add(self, kind: str, **content) -> "Page":
        self._blocks.append({"kind": kind, **content})
        return self


def _texts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, shown(value)) for name, value in values.items()]
