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
from typing import NoReturn

from reproduction.cells import REPOSITORY, Folders
from reproduction.commands import print_commands
from reproduction.data import prepare
from reproduction.figure3 import draw
from reproduction.page import DEFAULT_SEEDS, fill
from reproduction.report import write_report
from reproduction.runner import run_jobs
from reproduction.table import Table, jobs_of, select, with_processes
from reproduction.tables import TABLES

from d2_isonet.utils.messages import readable_errors


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("table", nargs="+", choices=[*TABLES, "all"])
    add("--scale", choices=("small", "full"), default="small")
    add("--rows", nargs="+", metavar="TEXT", help="only rows named so or, if none is, so in part")
    add("--columns", nargs="+", metavar="TEXT", help="the same for columns")
    add("--seeds", type=positive, default=DEFAULT_SEEDS, metavar="N", help="seeds 1 to N (3)")
    add("--jobs", type=positive, metavar="N", help="cells at a time (small: CPU cores, full: 1)")
    add("--threads", type=positive, default=1, metavar="N", help="CPU threads a small cell (1)")
    add("--num-gpus", type=positive, default=8, metavar="N", help="of a full run (8)")
    add("--show", action="store_true", help="run nothing")
    add("--dry-run", action="store_true", help="print the commands, run nothing")
    add("--page", type=Path, help="write the tables between its marks (RESULTS.md)")
    add("--results", type=Path, default=REPOSITORY / "results")
    add("--output", type=Path, default=Path("output/reproduce"))
    add("--data", type=Path, default=Path("output/reproduce/data"))
    args = parser.parse_args(arguments)
    if args.page and (args.rows or args.columns):
        parser.error("--page writes whole tables: leave out --rows and --columns")
    if args.page and not args.page.is_file():
        parser.error(f"--page: there is no file {args.page}")
    if args.scale == "full":
        args.threads = 0  # as many as the script takes
    args.jobs = args.jobs or (os.cpu_count() if args.scale == "small" else 1)
    return args


def chosen_tables(args: argparse.Namespace) -> list[Table]:
    """The tables with the rows and columns asked for; ends the program where none is left."""
    names = list(TABLES) if "all" in args.table else args.table
    tables = [with_processes(TABLES[name](args.scale), args.num_gpus) for name in names]
    rows = [row.label for table in tables for row in table.rows]
    columns = [column for table in tables for column in table.columns]
    for texts, labels in ((args.rows, rows), (args.columns, columns)):
        unknown = [text for text in texts or () if not any(text in label for label in labels)]
        if unknown:
            _end_without(unknown, rows, columns)
    selected = [select(table, args.rows, args.columns) for table in tables]
    selected = [table for table in selected if table.rows and table.columns]
    if not selected:  # rows of one table, columns of another
        _end_without([*(args.rows or ()), *(args.columns or ())], rows, columns)
    return selected


def _end_without(texts: list[str], rows: list[str], columns: list[str]) -> NoReturn:
    names = (", ".join(map(repr, dict.fromkeys(labels))) for labels in (rows, columns))
    sys.exit("error: no row or column {}; rows: {}; columns: {}".format(", ".join(texts), *names))


def main() -> int:
    args = parse_args()
    tables = chosen_tables(args)
    folders = Folders(args.results / args.scale, args.output / args.scale, args.data)
    jobs = jobs_of(tables, args.seeds)
    if args.dry_run:
        print_commands(jobs, folders)
        return 0
    failed: list[str] = []
    if not args.show:
        for data in sorted({cell.data.split("/")[0] for cell, _ in jobs}):
            prepare(data, args.data)
        failed = run_jobs(jobs, folders, args.jobs, args.threads)
    show(args, tables, folders)
    if failed:
        print(f"\n{len(failed)} cells failed, see above", file=sys.stderr)
    return 1 if failed else 0


def show(args: argparse.Namespace, tables: list[Table], folders: Folders) -> None:
    """Print the tables, write their json and pictures and, where asked for, the page."""
    for table in tables:
        write_report(table, folders, args.seeds, folders.output)
    histogram = draw(args.scale, folders, args.seeds, folders.output / "figure3.png")
    if histogram:
        print(f"Shifts of SReLU (figure 3): {histogram}")
    if args.page:
        missing = fill(args.page, tables, folders, args.seeds)
        print(f"Written: {args.page}" + (f"; it has no marks for {missing}" if missing else ""))


def _main_of_a_person() -> int:
    """main(), in words where results are damaged, it is stopped, or `| head` has seen enough."""
    try:
        with readable_errors():
            code = main()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # what is left in the buffer goes nowhere, instead of failing at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\nStopped. Finished cells are kept; the same command goes on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(_main_of_a_person())
