"""HTML pages: one file, untrusted text stays text, tables sort, images enlarge."""

import base64
import io
import re

import numpy as np
import pytest
from browser import chromium, opened  # noqa: F401
from matplotlib.figure import Figure
from PIL import Image

from d2_isonet.reporting.page.page import (
    Cell,
    Page,
    Picture,
    figure_uri,
    image_uri,
    plain_text,
    shown,
)

EVIL = "<img src=x onerror=\"document.title='gotcha'\"><script>alert(1)</script>&'"


def line(title: str = "") -> Figure:
    figure = Figure(figsize=(4, 2))
    figure.subplots().plot([1, 2, 3])
    figure.suptitle(title)
    return figure


def full_page(text: str = "a text") -> Page:
    """Every kind of block, with `text` wherever text goes."""
    rows = [{text: text, "AP": 3.14159}, {text: "b", "AP": None}, {text: "c", "AP": 20.0}]
    pixels = np.full((30, 40, 3), 200, np.uint8)
    return (
        Page(text, subtitle=text).section(text, text).subsection(text, text).text(text)
        .note(text).note(text, "warning").code(text).code(text, title=text)
        .numbers({text: text}).facts({text: text})
        .table(rows, caption=text).table(rows, fold=text)
        .table([[Cell(1, text, "good", text)]], columns=[text])
        .figure(line(), text)
        .images([Picture(pixels, text), Picture(pixels)], text)
    )  # fmt: skip


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.partition("base64,")[2])


def test_untrusted_text_never_becomes_markup():
    html = full_page(EVIL).html()
    assert "<img src=x" not in html and "<script>alert" not in html
    assert html.count("&lt;script&gt;alert(1)") >= 20


def test_the_page_names_no_other_file_and_forbids_every_request():
    html = full_page().html()
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert "@import" not in html and "url(" not in html
    assert "default-src 'none'" in html


def test_the_same_content_is_the_same_file(tmp_path):
    first, second = (full_page().write(tmp_path / f"new/{i}.html") for i in range(2))
    assert first.read_bytes() == second.read_bytes()


def test_a_lone_surrogate_of_a_file_name_does_not_stop_the_page(tmp_path):
    file = Page("x").text(b"caf\xe9.jpg".decode("utf-8", "surrogateescape")).write(tmp_path / "x")
    assert "caf" in file.read_text("utf-8")


@pytest.mark.parametrize(
    "value, text",
    [(None, "–"), (float("nan"), "–"), (True, "yes"), (1234567, "1\u202f234\u202f567"),
     (0.123456, "0.1235"), ("x", "x"), (np.float64(2.5), "2.5")],
)  # fmt: skip
def test_values_are_shown_short(value, text):
    assert shown(value) == text


def test_rows_that_are_not_mappings_need_columns():
    with pytest.raises(ValueError, match="need columns"):
        Page("x").table([[1, 2]])
    with pytest.raises(ValueError, match="a row of 2 values for 1 columns"):
        Page("x").table([[1, 2]], columns=["a"])


def test_images_are_reduced_and_keep_their_colours():
    pixels = np.zeros((100, 400, 3), np.uint8)
    pixels[:] = (255, 0, 0)
    image = Image.open(io.BytesIO(decoded(image_uri(pixels, 200))))
    assert image.size == (200, 50)
    red, green, blue = image.getpixel((100, 25))
    assert red > 240 and green < 15 and blue < 15


def test_pixels_that_are_not_uint8_are_refused():
    with pytest.raises(TypeError, match="data type"):
        image_uri(np.zeros((2, 2, 3)), 100)


def test_a_class_name_with_dollars_is_no_formula():
    svg = decoded(figure_uri(line(plain_text("$100 and $^{"))))
    assert b"<svg" in svg


def test_chromium_shows_all_of_it_and_runs_no_injected_script(chromium, tmp_path):  # noqa: F811
    with opened(chromium, full_page(EVIL).write(tmp_path / "page.html")) as page:
        assert page.title() == EVIL
        assert page.locator("h1").inner_text() == EVIL
        assert page.locator("main img").count() == 3
        loaded = "images => images.every(image => image.complete && image.naturalWidth > 0)"
        assert page.locator("main img").evaluate_all(loaded)


def test_a_click_sorts_a_table_with_missing_values_last(chromium, tmp_path):  # noqa: F811
    names, values = ("b", "a10", "a9", "c"), (9.5, None, 10.0, -1.0)
    rows = [{"name": n, "AP": v} for n, v in zip(names, values, strict=True)]
    with opened(chromium, Page("x").table(rows).write(tmp_path / "page.html")) as page:
        column = page.locator("tbody td:first-child")
        page.get_by_role("button", name="AP").click()
        assert column.all_inner_texts() == ["a9", "b", "c", "a10"]
        page.get_by_role("button", name="AP").click()
        assert column.all_inner_texts() == ["c", "b", "a9", "a10"]
        page.get_by_role("button", name="name").click()
        assert column.all_inner_texts() == ["a9", "a10", "b", "c"]
        assert page.locator("th[aria-sort]").count() == 1


def test_long_tables_have_a_field_that_filters(chromium, tmp_path):  # noqa: F811
    rows = [{"name": f"class {i}"} for i in range(20)]
    with opened(chromium, Page("x").table(rows).write(tmp_path / "page.html")) as page:
        page.locator("input.filter").fill("CLASS 1")
        assert page.locator("tbody tr:visible").count() == 11


def test_the_viewer_opens_shows_the_next_image_and_closes(chromium, tmp_path):  # noqa: F811
    pictures = [Picture(np.full((9, 9, 3), 80 * i, np.uint8), f"image {i}") for i in range(3)]
    file = Page("x").images(pictures).write(tmp_path / "page.html")
    with opened(chromium, file) as page:
        viewer, caption = page.locator("dialog"), page.locator("dialog p")
        assert not viewer.is_visible()
        page.locator(".gallery .view").first.click()
        assert viewer.is_visible() and caption.inner_text() == "image 0"
        page.keyboard.press("ArrowRight")
        assert caption.inner_text() == "image 1"
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert caption.inner_text() == "image 2"
        page.keyboard.press("Escape")
        assert not viewer.is_visible()
