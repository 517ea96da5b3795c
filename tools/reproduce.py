#!/usr/bin/env python
"""Repeat a table of the papers and print ours beside theirs.

python tools/reproduce.py table6                  run what is missing, then print (small scale)
python tools/reproduce.py table1 --show           print what has been run so far
python tools/reproduce.py table5 --scale full --dry-run    print the commands of the real runs
"""

import argparse
import os
import sys
from pathlib import Path

from reproduction.cells import REPOSITORY, Folders
from reproduction.commands import print_commands
from reproduction.data import prepare
from reproduction.figure3 import draw
from reproduction.page import fill
from reproduction.report import write_report
from reproduction.runner import run_jobs
from reproduction.table import jobs_of, select_rows
from reproduction.tables import TABLES


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", nargs="+", choices=[*TABLES, "all"])
    parser.add_argument("--scale", choices=("small", "full"), default="small")
    parser.add_argument("--rows", nargs="+", metavar="TEXT", help="rows whose label holds a TEXT")
    parser.add_argument("--columns", nargs="+", metavar="TEXT", help="the same for columns")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 1 to N")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cells at a time")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads a cell")
    parser.add_argument("--show", action="store_true", help="run nothing")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    parser.add_argument("--page", type=Path, help="write the tables between its marks (RESULTS.md)")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results")
    parser.add_argument("--output", type=Path, default=Path("output/reproduce"))
    parser.add_argument("--data", type=Path, default=Path("output/reproduce/data"))
    return parser.parse_args(arguments)


def main() -> int:
    args = parse_args()
    names = list(TABLES) if "all" in args.table else args.table
    tables = [select_rows(TABLES[name](args.scale), args.rows, args.columns) for name in names]
    folders = Folders(args.results / args.scale, args.output / args.scale, args.data)
    jobs = jobs_of(tables, args.seeds)
    if args.dry_run:
        print_commands(jobs, folders)
        return 0
    failed = []
    if not args.show:
        for data in sorted({cell.data.split("/")[0] for cell, _ in jobs}):
            prepare(data, args.data)
        failed = run_jobs(jobs, folders, args.jobs, args.threads)
    for table in tables:
        write_report(table, folders, args.seeds, folders.output)
    histogram = draw(folders, args.seeds, folders.output / "figure3.png")
    if histogram and not args.rows:
        print(f"Shifts of SReLU (figure 3): {histogram}")
    if args.page:
        missing = fill(args.page, tables, folders, args.seeds)
        print(f"Written: {args.page}" + (f"; it has no marks for {missing}" if missing else ""))
    if failed:
        print(f"\n{len(failed)} cells failed, see above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
