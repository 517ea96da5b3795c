"""All checks of one page."""

import os
from dataclasses import dataclass
from pathlib import Path

from .commands import Command, commands_of
from .links import broken_links
from .markdown import Page, Problem
from .names import unknown_names
from .programs import is_left_alone, problem_of
from .repository import ROOT
from .snippets import failing_snippets

_EXECUTED = ("python", "yaml", "json")


@dataclass
class PageCheck:
    """What was found on a page.

    Args:
        not_run: page, line and reason of what the page says is not run.
    """

    page: Page
    commands: list[Command]
    not_run: list[str]
    problems: list[Problem]

    def counts(self) -> tuple[str, int, int, int, int, int]:
        """Page, links, commands checked and left alone, snippets executed, problems."""
        alone = [c for c in self.commands if c.not_run or is_left_alone(c.words)]
        run = [b for b in self.page.blocks if b.language in _EXECUTED and not b.not_run]
        checked = len(self.commands) - len(alone)
        return (
            _name(self.page.path),
            len(self.page.links),
            checked,
            len(alone),
            len(run),
            len(self.problems),
        )


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
    not_run = [f"{_name(path)}:{b.line}: {b.not_run}" for b in page.blocks if b.not_run]
    return PageCheck(page, commands, not_run, sorted(problems))


def _name(path: Path) -> str:
    return os.path.relpath(path, ROOT)
