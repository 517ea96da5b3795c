"""The commands of a document: which lines they are, and the words of each."""

import itertools
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from .markdown import Block, Page
from .programs import PROGRAMS

_SHELL = ("bash", "sh", "shell", "console")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


class Command(NamedTuple):
    """One command as a user would type it.

    Args:
        words: the program and its arguments.
        line: of the document.
        not_run: the reason that the document gives; "" where the command is checked.
    """

    words: tuple[str, ...]
    line: int
    not_run: str = ""

    def __str__(self) -> str:
        return shlex.join(self.words)


def commands_of(page: Page) -> Iterator[Command]:
    """Those of the blocks, and those between backticks that begin with a known program.

    A block is one of commands where it says so (bash, sh, shell, console), or has no language and
    begins with `$ ` or a known program. With `$ ` only the lines that have it are commands.
    """
    for block in page.blocks:
        if _is_shell(block):
            yield from _in_block(block)
    for span in page.spans:
        if " " in span.text and _program(span.text) in PROGRAMS:
            yield from _variants(span.text, span.line, "")


def _is_shell(block: Block) -> bool:
    lines = (line for line in block.text.splitlines() if line.strip() and line[0] != "#")
    first = next(lines, "").rstrip("\\")
    known = first.startswith("$ ") or _program(first) in PROGRAMS
    return block.language in _SHELL or (not block.language and known)


def _in_block(block: Block) -> Iterator[Command]:
    lines = block.text.splitlines()
    prompted = any(line.startswith("$ ") for line in lines)
    number = 0
    while number < len(lines):
        start, text = number, lines[number]
        while text.endswith("\\") and number + 1 < len(lines):
            number += 1
            text = text[:-1] + " " + lines[number]
        number += 1
        if text.strip() and not text.startswith("#") and (not prompted or text.startswith("$ ")):
            yield from _variants(text.removeprefix("$ "), block.line + start, block.not_run)


def _variants(text: str, line: int, not_run: str) -> Iterator[Command]:
    """`a|b` is either; what stands in [ ] is given; `A=b command` is the command."""
    words = shlex.split(text, comments=True)
    words = list(itertools.dropwhile(_ASSIGNMENT.match, words))
    choices = [word.strip("[]").split("|") if _has_choices(word) else [word] for word in words]
    for chosen in itertools.product(*choices):
        yield Command(chosen, line, not_run)


def _has_choices(word: str) -> bool:
    return bool(re.fullmatch(r"\[?[\w.-]+(?:\|[\w.-]+)*\]?", word))


def _program(text: str) -> str:
    try:
        words = shlex.split(text, comments=True)
    except ValueError:  # a lone quote: prose
        return ""
    words = list(itertools.dropwhile(_ASSIGNMENT.match, words))
    return words[0] if words else ""
