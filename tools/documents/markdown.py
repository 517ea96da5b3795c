"""Parses a markdown file: links, anchors, code spans and code blocks, and checks its links."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parent.parent.parent
_MARK = re.compile(r"<!--\s*not run:\s*(.+?)\s*-->", re.DOTALL)


class Problem(NamedTuple):
    """A false statement of a page, and its line."""

    path: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{os.path.relpath(self.path)}:{self.line}: {self.what}"


class Span(NamedTuple):
    """A piece of text and its line, counted from 1."""

    text: str
    line: int


class Block(NamedTuple):
    """A fenced block of code.

    Args:
        language: the first word after the fence; "" for none.
        line: of the first line of code.
        not_run: REASON of a comment <!-- not run: REASON --> directly above; "" without one.
    """

    language: str
    text: str
    line: int
    not_run: str


class Page:
    """A markdown file, read once."""

    def __init__(self, path: Path):
        self.path = path
        self._tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text("utf-8"))

    @cached_property
    def links(self) -> list[Span]:
        """The targets of links and images."""
        found = []
        for token, line in self._inline():
            target = token.attrGet("href" if token.type == "link_open" else "src")
            if token.type in ("link_open", "image"):
                found.append(Span(str(target), line))
        return found

    @cached_property
    def spans(self) -> list[Span]:
        """The text between single backticks."""
        return [Span(t.content, line) for t, line in self._inline() if t.type == "code_inline"]

    @cached_property
    def anchors(self) -> set[str]:
        """GitHub's anchors: lower case, punctuation dropped, a hyphen for every space."""
        seen: Counter[str] = Counter()
        anchors = set()
        for opening, content in zip(self._tokens, self._tokens[1:], strict=False):
            if opening.type == "heading_open":
                text = "".join(child.content for child in content.children or ())
                slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
                anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
                seen[slug] += 1
        return anchors

    @cached_property
    def blocks(self) -> list[Block]:
        """The fenced blocks."""
        blocks, reason = [], ""
        for token in self._tokens:
            if token.type == "fence" and token.map:
                language = token.info.split(maxsplit=1)[0] if token.info.strip() else ""
                blocks.append(Block(language, token.content, token.map[0] + 2, reason))
            mark = _MARK.search(token.content) if token.type == "html_block" else None
            reason = " ".join(mark[1].split()) if mark else ""
        return blocks

    def _inline(self) -> Iterator[tuple[Token, int]]:
        for token in self._tokens:
            line = token.map[0] + 1 if token.map else 0
            for child in token.children or ():
                yield child, line
                line += child.type in ("softbreak", "hardbreak")


def broken_links(page: Page) -> Iterator[Problem]:
    """The relative links whose file or heading does not exist; web addresses are not checked."""
    for link in page.links:
        parts = urlsplit(link.text)
        if parts.scheme or parts.netloc:
            continue
        target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
        if not target.is_relative_to(ROOT) or not target.exists():
            yield Problem(page.path, link.line, f"link to {link.text}: there is no such file")
        elif parts.fragment and target.suffix == ".md":
            anchors = page.anchors if target == page.path else Page(target).anchors
            if parts.fragment not in anchors:
                what = f"link to {link.text}: no heading has that name"
                yield Problem(page.path, link.line, what)
