"""The page: blocks put one under the other, then written as one HTML file."""

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
from d2_isonet.utils.messages import UserError

from .tables import shown, table_of

# Text as paths: the reader's machine needs no font. The salt makes the same figure the same bytes.
SVG_STYLE = {"svg.fonttype": "path", "svg.hashsalt": "page"}


def plain_text(text: str) -> str:
    """`text` as matplotlib shows it letter by letter: two $ would otherwise enclose a formula."""
    return text.replace("$", r"\$")


def figure_uri(figure: Figure, form: str = "svg", dpi: int = 110) -> str:
    """A matplotlib figure as a data URI.

    Args:
        form: "svg" (sharp, grows with the number of points) or "png".
        dpi: dots per inch of a png.

    Raises:
        UserError: another form.
    """
    if form not in ("svg", "png"):
        raise UserError(f"a figure's form is 'svg' or 'png', not {form!r}")
    file = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else None  # else it tells when it was drawn
    # a layout of its own is drawn once, not measured first
    box = None if figure.get_layout_engine() else "tight"
    with rc_context(SVG_STYLE):
        figure.savefig(file, format=form, dpi=dpi, metadata=metadata, bbox_inches=box)
    return _data_uri("image/svg+xml" if form == "svg" else "image/png", file.getvalue())


def image_uri(image: np.ndarray | Image.Image | Path, max_side: int, quality: int = 85) -> str:
    """An image as the data URI of a JPEG.

    Args:
        image: (H, W, 3) RGB or (H, W) grey, uint8; or a Pillow image; or a file, turned upright.
        max_side: a longer side is reduced to this many pixels.
        quality: of the JPEG, 1 to 95.

    Raises:
        UserError: an array of another shape or type.
        OSError: the file cannot be read as an image.
    """
    reduced = _as_pillow(image).convert("RGB")
    reduced.thumbnail((max_side, max_side))
    file = io.BytesIO()
    reduced.save(file, format="JPEG", quality=quality)
    return _data_uri("image/jpeg", file.getvalue())


def _as_pillow(image: np.ndarray | Image.Image | Path) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.copy()  # thumbnail works in place
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise UserError(
                f"an image is (H, W, 3) or (H, W) of uint8, not {image.shape} of {image.dtype}"
            )
        return Image.fromarray(np.ascontiguousarray(image))
    from PIL import ImageOps

    with Image.open(image) as opened:
        return ImageOps.exif_transpose(opened)


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


FOLDER = Path(__file__).resolve().parent


def render(**content) -> str:
    """The page as text; all of `content` is escaped.

    The script's digest stands in the page's Content-Security-Policy: no other script runs.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    script, style = ((FOLDER / name).read_text("utf-8") for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("page.html")
    return template.render(**content, style=style, script=script, script_digest=digest)


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
