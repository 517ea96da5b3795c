#!/usr/bin/env python
"""Check that what the documents say is so: links, names, commands and code.

python tools/check_documents.py                    every markdown file of the repository
python tools/check_documents.py docs/scaling.md    these

A command is parsed by the script it calls, with the very arguments, and its config is loaded;
Python is executed, yaml merged into the config. <!-- not run: REASON --> above a block says why
its content is left alone. Ends with 1 where something does not hold.
"""

import argparse
import os
import sys
from pathlib import Path

from documents.page_check import check_page
from documents.repository import ROOT, documents
from tabulate import tabulate


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="default: all")
    return parser.parse_args()


def main(args: argparse.Namespace) -> int:
    pages = [path.resolve() for path in args.pages or documents()]
    os.chdir(ROOT)  # from where a reader of the documents works
    checked = [check_page(path) for path in pages]
    rows = [check.counts() for check in checked]
    columns = ("page", "links", "commands", "snippets", "problems")
    print(tabulate(rows, columns))
    for check in checked:
        for reason in check.not_run:
            print(f"not run: {reason}")
    for check in checked:
        for problem in check.problems:
            print(problem, file=sys.stderr)
    return int(any(check.problems for check in checked))


if __name__ == "__main__":
    sys.exit(main(parse_args()))
