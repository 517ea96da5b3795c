"""Figures and images as data URIs, so that a page needs no other file."""

import base64
import io
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

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
        ValueError: another form.
    """
    if form not in ("svg", "png"):
        raise ValueError(f"a figure's form is 'svg' or 'png', not {form!r}")
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
        ValueError: an array of another shape or type.
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
            raise ValueError(
                f"an image is (H, W, 3) or (H, W) of uint8, not {image.shape} of {image.dtype}"
            )
        return Image.fromarray(np.ascontiguousarray(image))
    from PIL import ImageOps

    with Image.open(image) as opened:
        return ImageOps.exif_transpose(opened)


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
