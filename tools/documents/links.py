"""Checks the links from a page to other pages and to files of the repository."""

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from .markdown import Page, Problem
from .names import ROOT


def broken_links(page: Page) -> Iterator[Problem]:
    """The relative links whose file or heading does not exist; web addresses are not checked."""
    for link in page.links:
        parts = urlsplit(link.text)
        if parts.scheme or parts.netloc:
            continue
        target = page.path
        if parts.path:
            target = (page.path.parent / unquote(parts.path)).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            yield Problem(page.path, link.line, f"link to {link.text}: there is no such file")
        elif parts.fragment and target.suffix == ".md":
            anchors = page.anchors if target == page.path else Page(target).anchors
            if parts.fragment not in anchors:
                what = f"link to {link.text}: no heading has that name"
                yield Problem(page.path, link.line, what)
