"""A real headless Chromium for tests of HTML pages; they skip where there is none."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

# Nothing of the browser's own may reach the network.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """Playwright's Browser, on the Chromium of D2_ISONET_CHROMIUM or of the PATH."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    executable = os.environ.get("D2_ISONET_CHROMIUM") or next(
        filter(None, map(shutil.which, NAMES)), None
    )
    if not executable:
        pytest.skip("no Chromium on the PATH (set D2_ISONET_CHROMIUM)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(chromium, file: Path, **options) -> Iterator:
    """The file as a page; at the end it has written no error and asked for nothing but itself.

    Args:
        options: of Browser.new_page, such as color_scheme="dark".
    """
    page = chromium.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
    problems: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.resolve().as_uri())
    try:
        yield page
        assert problems == []
        assert [url for url in requests if not url.startswith("data:")] == [page.url.split("#")[0]]
    finally:
        page.close()
