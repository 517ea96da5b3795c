"""Check the markdown files: links, names, commands and code.

python tools/check_documents.py                    every markdown file of the repository
python tools/check_documents.py docs/scaling.md    only these files

The program that a command starts parses the arguments, and the config is loaded. Python is
executed, yaml is merged into the config. To skip a block, write <!-- not run: REASON --> above it.
The exit code is 1 if there is a problem.
"""

import argparse
import itertools
import os
import sys
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from .commands import commands_of
from .markdown import ROOT, Page, Problem, broken_links
from .names import documents, unknown_names
from .programs import problem_of, why_left_alone
from .snippets import failing_snippets, snippets_of


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
    print(tabulate([(*check.counts, len(check.problems)) for check in checks], columns))
    for reason in itertools.chain.from_iterable(check.not_run for check in checks):
        print(f"not run: {reason}")
    problems = list(itertools.chain.from_iterable(check.problems for check in checks))
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    return int(bool(problems))


class PageCheck(NamedTuple):
    """The result of all checks of a page.

    Args:
        counts: the page, and its numbers of links, checked commands and executed snippets.
        not_run: page, line, text and reason of everything that is not checked.
    """

    counts: tuple[str, int, int, int]
    not_run: list[str]
    problems: list[Problem]


def check_page(path: Path) -> PageCheck:
    """Read a page and run all checks."""
    page, name, checked = Page(path), os.path.relpath(path, ROOT), 0
    problems = [*broken_links(page), *failing_snippets(page)]
    if path.name != "CHANGELOG.md":  # it names things of the past
        problems += unknown_names(page)
    not_run = [f"{name}:{block.line}: {block.not_run}" for block in page.blocks if block.not_run]
    for command in [command for command in commands_of(page) if not command.not_run]:
        reason, problem = why_left_alone(command.words), problem_of(command.words)
        if reason:
            not_run.append(f"{name}:{command.line}: `{command}`: {reason}")
        if problem:
            problems.append(Problem(path, command.line, f"`{command}`: {problem}"))
        checked += not reason
    counts = (name, len(page.links), checked, len(snippets_of(page)))
    return PageCheck(counts, not_run, sorted(problems))
