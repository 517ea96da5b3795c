"""The demo's page in a real browser: what a person sees and does, and the requests sent."""

import argparse
import json
import re
import socket
import threading

import cv2
import numpy as np
import pytest

pytest.importorskip("flask", reason="Flask is not installed (the extra 'serve')")
pytest.importorskip("waitress", reason="waitress is not installed (the extra 'serve')")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

import demo_detector  # noqa: E402
from browser import chromium  # noqa: E402, F401

from d2_isonet.demo import server  # noqa: E402

CLICKED = """document.getElementById("file").addEventListener("click", (event) => {
  event.target.className = "clicked";
  event.preventDefault();
})"""
# the events of a drop or a paste of files
DROP = """([kind, name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name));
  const init = {bubbles: true, cancelable: true};
  document.getElementById("stage").dispatchEvent(kind === "drop"
    ? new DragEvent("drop", {...init, dataTransfer: data})
    : new ClipboardEvent("paste", {...init, clipboardData: data}));
}"""


@pytest.fixture(scope="module")
def address():
    """The address of a server that finds bright rectangles, with a limit of 0.1 MB."""
    args = argparse.Namespace(host="127.0.0.1", max_upload=0.1, threshold=0.5, weights="tiny.pth")
    with server.open_socket(args.host, 0) as listening:
        app = server.create_app(demo_detector.BrightDetector(), args)
        serving = server.create_server(app, listening, args)
        thread = threading.Thread(target=serving.run, daemon=True)
        thread.start()
        host, port = listening.getsockname()
        yield f"http://{host}:{port}/"
        serving.close()


@pytest.fixture(scope="module")
def tab(chromium):  # noqa: F811
    """One tab for all tests, because a tab takes seconds to open on a busy machine."""
    context = chromium.new_context()
    opened = context.new_page()
    opened.set_default_timeout(30000)
    yield opened
    context.close()


@pytest.fixture
def page(tab, address):
    """The page. It must log nothing but `expected`, and send no request to another server."""
    complaints: list[str] = []
    requests: list[str] = []
    listeners = {
        "console": lambda message: complaints.append(f"{message.type}: {message.text}"),
        "pageerror": lambda error: complaints.append(str(error)),
        "request": lambda request: requests.append(request.url),
    }
    for event, listener in listeners.items():
        tab.on(event, listener)
    tab.set_viewport_size({"width": 1280, "height": 800})
    tab.goto(address)
    tab.expected = []
    yield tab
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    tab.unroute_all()
    assert [x for x in complaints if not any(e in x for e in tab.expected)] == []
    assert [x for x in requests if not x.startswith((address, "data:", "blob:"))] == []


def file_bytes(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


TWO = file_bytes(demo_detector.picture((10, 20, 30, 15), (50, 5, 20, 10)))


def give(page, kind: str = "drop", name: str = "two.png", data: bytes | int = TWO) -> str:
    """Drop or paste a file, or one of `data` zeros, and return the status that follows."""
    page.evaluate(DROP, [kind, name, data if isinstance(data, int) else list(data)])
    looking = re.compile("^(Processing.*)?$")
    playwright.expect(page.locator("#status")).not_to_have_text(looking, timeout=30000)
    return page.inner_text("#status")


def colour_at(page, x: float, y: float) -> list[int]:
    """RGB on the canvas, at a pixel of the 80 x 60 image."""
    return page.evaluate(
        """([x, y]) => { const c = document.getElementById("canvas");
        return [...c.getContext("2d").getImageData(x * c.width / 80, y * c.height / 60, 1, 1).data]
        .slice(0, 3); }""",
        [x, y],
    )


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_that_is_dropped_or_pasted_is_looked_at(page, kind):
    assert give(page, kind).startswith("2 objects in two.png, 80 × 60, in ")
    assert page.locator("#found li").all_inner_texts() == ["red\n0.90", "blue\n0.70"]
    assert page.locator("#legend li").all_inner_texts() == ["red (1)", "blue (1)"]
    assert page.get_attribute("#canvas", "aria-label") == "two.png: red, blue"


def test_masks_are_drawn_where_the_objects_are(page):
    page.expected = ["willReadFrequently"]  # of this test's reading
    give(page)
    for name in ("names", "boxes"):
        page.uncheck(f"#show-{name}")
    with_mask, beside = colour_at(page, 25, 28), colour_at(page, 60, 45)
    page.uncheck("#show-masks")
    assert colour_at(page, 25, 28) != with_mask
    assert colour_at(page, 60, 45) == beside


def test_an_image_is_chosen_by_the_keyboard_alone(page, tmp_path):
    (tmp_path / "two.png").write_bytes(TWO)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
    # the browser's own dialog is not opened: it is enough that it is asked for
    page.evaluate(CLICKED)
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#file.clicked")).to_have_count(1, timeout=30000)
    page.set_input_files("#file", tmp_path / "two.png")
    page.wait_for_selector("#found li")
    visited = [page.evaluate("document.activeElement.id")]
    for _ in range(3):
        page.keyboard.press("Tab")
        visited.append(page.evaluate("document.activeElement.id"))
    assert visited == ["again", "save-picture", "save-json", "threshold"]
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    assert page.inner_text("#score") == "0.80"
    assert page.locator("#found li").all_inner_texts() == ["red\n0.90"]


def test_a_class_can_be_hidden(page):
    give(page)
    page.get_by_label("red (1)").uncheck()
    assert page.locator("#found li").all_inner_texts() == ["blue\n0.70"]
    assert page.inner_text("#status").startswith("1 object in two.png")


def test_nothing_of_that_score_is_said(page):
    assert "Lower the score to see more" not in give(page)
    page.fill("#threshold", "0.95")
    assert "0 objects" in page.inner_text("#status") and "Lower the score" in page.inner_text(
        "#status"
    )


def test_picture_and_json_of_what_is_shown_are_saved(page, tmp_path):
    give(page, name="my two.png")
    page.fill("#threshold", "0.8")
    page.uncheck("#show-names")
    for button, suffix in (("#save-json", "json"), ("#save-picture", "png")):
        with page.expect_download() as download:
            page.click(button)
        assert download.value.suggested_filename == f"my two_found.{suffix}"
        download.value.save_as(tmp_path / suffix)
    coco = json.loads((tmp_path / "json").read_text())
    assert [x["category_id"] for x in coco["annotations"]] == [3]
    assert coco["images"] == [{"id": 1, "file_name": "my two.png", "width": 80, "height": 60}]
    drawn = cv2.imread(str(tmp_path / "png"))
    assert drawn.shape == (60, 80, 3)
    assert abs(drawn[7, 60].astype(int) - (250, 30, 30)).max() < 12  # blue, below the score


def test_what_is_no_image_is_told_and_the_next_one_is_taken(page):
    page.expected = ["422"]  # the browser's own line on the answer
    assert "notes.png: this file cannot be shown" in give(page, "drop", "notes.png", b"hi")
    assert page.locator("#status.trouble").count() == 1 and page.is_hidden("#panel")
    assert give(page).startswith("2 objects")
    assert page.locator("#status.trouble").count() == 0


def test_a_file_over_the_limit_is_not_sent(page):
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    told = give(page, "drop", "huge.png", 123_456)
    assert told == "huge.png has 0.1 MB; the limit is 0.1 MB." and sent == []


def test_a_larger_body_than_allowed_is_refused_by_the_server_too(address):
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST /detect HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 999999999\r\n\r\n"
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(4096)


def test_a_server_that_is_gone_is_told(page):
    page.route("**/detect", lambda route: route.abort())
    page.expected = ["ERR_FAILED"]
    assert give(page) == "The server does not answer. Is it still running?"


def test_names_are_text_and_no_markup(page):
    told = give(page, "drop", "<img src=x onerror=alert(1)>.png")
    assert "<img src=x" in told and page.locator("#status img").count() == 0


def test_it_fits_a_phone(page):
    page.set_viewport_size({"width": 360, "height": 640})
    give(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#canvas").bounding_box()["width"] <= 360
    for button in page.locator("#actions button").all():
        assert button.bounding_box()["height"] >= 40


@pytest.mark.parametrize("scheme, is_dark", [("light", False), ("dark", True)])
def test_it_is_dark_where_that_is_asked_for(page, scheme, is_dark):
    page.emulate_media(color_scheme=scheme)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, colour.strip("rgb()").split(","))) < 200) == is_dark
