#!/usr/bin/env python
"""Write the tables of MODEL_ZOO.md: a row for every config, with the paper's figure and ours.

python tools/model_zoo.py

Ours are the runs that `tools/reproduce.py TABLE --scale full` has stored below results/full.
"""

import argparse
import sys
from pathlib import Path

from reproduction.cells import REPOSITORY
from reproduction.page import replace_parts
from reproduction.zoo import SECTIONS, zoo_table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--results", type=Path, default=REPOSITORY / "results" / "full")
    add("--page", type=Path, default=REPOSITORY / "MODEL_ZOO.md")
    return parser.parse_args()


def main(args: argparse.Namespace) -> int:
    parts = {section: zoo_table(section, args.results) + "\n" for section in SECTIONS}
    text, missing = replace_parts(args.page.read_text(), parts)
    args.page.write_text(text)
    print(f"Written: {args.page}" + (f"; it has no marks for {missing}" if missing else ""))
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main(parse_args()))
