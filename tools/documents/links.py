"""Links between the documents, and from them to files of the repository."""

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from .markdown import Page, Problem
from .repository import ROOT


def broken_links(page: Page) -> Iterator[Problem]:
    """Relative links to files or headings that are not there. Addresses of others are not asked."""
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
