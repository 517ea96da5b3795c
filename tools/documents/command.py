"""Check the markdown files: links, names, commands and code.

python tools/check_documents.py                    every markdown file of the repository
python tools/check_documents.py docs/scaling.md    only these files

The program that a command starts parses the arguments, and the config is loaded. Python is
executed, yaml is merged into the config. To skip a block, write <!-- not run: REASON --> above it.
The exit code is 1 if there is a problem.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from .commands import Command, commands_of
from .links import broken_links
from .markdown import Page, Problem
from .names import ROOT, documents, unknown_names
from .programs import problem_of, why_left_alone
from .snippets import EXECUTED, failing_snippets


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="default: all pages")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Check the pages, print a table and all problems, and return the exit code."""
    pages = [path.resolve() for path in parse_args(arguments).pages or documents()]
    os.chdir(ROOT)  # a reader works in the root folder
    checks = [check_page(path) for path in pages]
    columns = ("page", "links", "commands", "snippets", "problems")
    print(tabulate([check.counts() for check in checks], columns))
    for reason in (reason for check in checks for reason in check.not_run):
        print(f"not run: {reason}")
    problems = [problem for check in checks for problem in check.problems]
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


@dataclass
class PageCheck:
    """The result of all checks of a page.

    Args:
        not_run: page, line, text and reason of everything that is not checked.
    """

    page: Page
    commands: list[Command]
    not_run: list[str]
    problems: list[Problem]

    def counts(self) -> tuple[str, int, int, int, int]:
        """The page and its numbers of links, checked commands, executed snippets and problems."""
        checked = [c for c in self.commands if not (c.not_run or why_left_alone(c.words))]
        run = [b for b in self.page.blocks if b.language in EXECUTED and not b.not_run]
        numbers = map(len, (self.page.links, checked, run, self.problems))
        return os.path.relpath(self.page.path, ROOT), *numbers


def check_page(path: Path) -> PageCheck:
    """Read a page and run all checks."""
    page = Page(path)
    commands = list(commands_of(page))
    problems = [*broken_links(page), *failing_snippets(page)]
    if path.name != "CHANGELOG.md":  # it names things of the past
        problems += unknown_names(page)
    for command in commands:
        problem = "" if command.not_run else problem_of(command.words)
        if problem:
            problems.append(Problem(path, command.line, f"`{command}`: {problem}"))
    return PageCheck(page, commands, list(_not_run(page, commands)), sorted(problems))


def _not_run(page: Page, commands: list[Command]) -> Iterator[str]:
    name = os.path.relpath(page.path, ROOT)
    for block in page.blocks:
        if block.not_run:
            yield f"{name}:{block.line}: {block.not_run}"
    for command in commands:
        reason = why_left_alone(command.words)
        if reason and not command.not_run:
            yield f"{name}:{command.line}: `{command}`: {reason}"
