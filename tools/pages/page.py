"""The page: blocks put one under the other, then written as one HTML file."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from d2_isonet.utils.files import as_save_error

from .inline import figure_uri, image_uri
from .render import render
from .tables import shown, table_of


class Picture(NamedTuple):
    """An image, (H, W, 3) RGB uint8 or a Pillow image or a file, and the words under it."""

    image: np.ndarray | Image.Image | Path
    caption: str = ""


class Page:
    """Sections of text, tables, figures and images; every method but the last two returns itself.

    All text may come from strangers: it is escaped, and the page forbids every other script and
    every request.
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
        """A sentence that stands out; level "info" or "warning"."""
        return self._add("note", text=text, level=level)

    def code(self, text: str, title: str = "") -> "Page":
        """Text as it is, in a fixed-width font; with a title it is folded until clicked."""
        return self._add("code", text=text, title=title)

    def numbers(self, values: Mapping[str, Any]) -> "Page":
        """A few large numbers with their names."""
        return self._add("numbers", items=_texts(values))

    def facts(self, values: Mapping[str, Any]) -> "Page":
        """Names and values, one a line."""
        return self._add("facts", items=_texts(values))

    def table(
        self,
        rows: Sequence[Mapping | Sequence],
        columns: Iterable[str] | None = None,
        caption: str = "",
        formats: Mapping[str, str] | None = None,
        fold: str = "",
    ) -> "Page":
        """A table that sorts by a click on a column's name.

        Args:
            rows: mappings of column to value, or sequences; a value may be a `Cell`.
            columns: their order; needed where rows are sequences.
            formats: column -> format of its floats (".4g").
            fold: a title under which the table is hidden until clicked.
        """
        return self._add("table", caption=caption, fold=fold, **table_of(rows, columns, formats))

    def figure(self, figure: Figure, caption: str = "", form: str = "svg") -> "Page":
        """A matplotlib figure, as "svg" or, for thousands of points, "png"."""
        return self._add("figure", uri=figure_uri(figure, form), caption=caption)

    def images(self, pictures: Iterable[Picture], caption: str = "", max_side=960) -> "Page":
        """A gallery; a click enlarges, arrow keys go on, Esc closes. max_side in pixels."""
        items = [(image_uri(p.image, max_side), p.caption) for p in pictures]
        return self._add("images", items=items, caption=caption)

    def html(self) -> str:
        """The whole page as text."""
        return render(title=self.title, subtitle=self.subtitle, blocks=self._blocks)

    def write(self, path: Path | str) -> Path:
        """Write the page and return its path; raises SaveError where that cannot be."""
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
