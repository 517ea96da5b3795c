"""The commands of a page: which lines they are, and the words of each."""

import itertools
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from .markdown import Block, Page
from .programs import PROGRAMS

_SHELL = ("bash", "sh", "shell", "console")
_LINE = re.compile(r"(.*\\\n)*.+")  # a backslash at its end continues a line
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


class Command(NamedTuple):
    """A command as a user would type it.

    Args:
        words: the program and its arguments.
        line: its line in the page.
        not_run: the reason that the page gives for skipping it; "" if it is checked.
    """

    words: tuple[str, ...]
    line: int
    not_run: str = ""

    def __str__(self) -> str:
        return shlex.join(self.words)


def commands_of(page: Page) -> Iterator[Command]:
    """The commands of the blocks, and of code between backticks that begins with a known program.

    A block holds commands if its language is a shell's, or if it has no language and begins with
    `$ ` or a known program. If a line begins with `$ `, only such lines are commands.
    """
    for block in page.blocks:
        if _is_shell(block):
            yield from _in_block(block)
    for span in page.spans:
        if " " in span.text and _is_known(span.text):
            yield from _variants(span.text, span.line, "")


def _is_shell(block: Block) -> bool:
    lines = (line for line in block.text.splitlines() if line.strip() and line[0] != "#")
    first = next(lines, "").rstrip("\\")
    known = first.startswith("$ ") or _is_known(first)
    return block.language in _SHELL or (not block.language and known)


def _in_block(block: Block) -> Iterator[Command]:
    prompted = re.search(r"^\$ ", block.text, re.MULTILINE)
    for match in _LINE.finditer(block.text):
        text = match[0].replace("\\\n", " ")
        line = block.line + block.text.count("\n", 0, match.start())
        if text.strip() and not text.startswith("#") and (not prompted or text.startswith("$ ")):
            yield from _variants(text.removeprefix("$ "), line, block.not_run)


def _variants(text: str, line: int, not_run: str) -> Iterator[Command]:
    """All commands that a line stands for: `a|b` is either word, words in [ ] are included."""
    choices = [
        word.strip("[]").split("|") if re.fullmatch(r"\[?[\w.-]+(\|[\w.-]+)*\]?", word) else [word]
        for word in _words(text)
    ]
    for chosen in itertools.product(*choices):
        yield Command(chosen, line, not_run)


def _is_known(text: str) -> bool:
    try:
        words = _words(text)
    except ValueError:  # a single quote: prose
        return False
    return bool(words) and words[0] in PROGRAMS


def _words(text: str) -> list[str]:
    """The words of a command without its comment and without leading `NAME=value`."""
    return list(itertools.dropwhile(_ASSIGNMENT.match, shlex.split(text, comments=True)))
