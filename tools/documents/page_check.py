"""All checks of one page."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .commands import Command, commands_of
from .links import broken_links
from .markdown import Page, Problem
from .names import unknown_names
from .programs import problem_of, why_left_alone
from .repository import ROOT
from .snippets import failing_snippets

_EXECUTED = ("python", "yaml", "json")


@dataclass
class PageCheck:
    """What was found on a page.

    Args:
        not_run: page, line, what and why of all that is not checked.
    """

    page: Page
    commands: list[Command]
    not_run: list[str]
    problems: list[Problem]

    def counts(self) -> tuple[str, int, int, int, int]:
        """Page, links, commands checked, snippets executed, problems."""
        checked = [c for c in self.commands if not (c.not_run or why_left_alone(c.words))]
        run = [b for b in self.page.blocks if b.language in _EXECUTED and not b.not_run]
        numbers = map(len, (self.page.links, checked, run, self.problems))
        return _name(self.page.path), *numbers


def check_page(path: Path) -> PageCheck:
    """Read a page and check everything it promises."""
    page = Page(path)
    commands = list(commands_of(page))
    problems = [*broken_links(page), *failing_snippets(page)]
    if path.name != "CHANGELOG.md":  # which names what was
        problems += unknown_names(page)
    for command in commands:
        problem = "" if command.not_run else problem_of(command.words)
        if problem:
            problems.append(Problem(path, command.line, f"`{command}`: {problem}"))
    return PageCheck(page, commands, list(_not_run(page, commands)), sorted(problems))


def _not_run(page: Page, commands: list[Command]) -> Iterator[str]:
    for block in page.blocks:
        if block.not_run:
            yield f"{_name(page.path)}:{block.line}: {block.not_run}"
    for command in commands:
        reason = why_left_alone(command.words)
        if reason and not command.not_run:
            yield f"{_name(page.path)}:{command.line}: `{command}`: {reason}"


def _name(path: Path) -> str:
    return os.path.relpath(path, ROOT)
