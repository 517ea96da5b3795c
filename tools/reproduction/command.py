"""Runs or prints tables of the papers: the arguments of `tools/reproduce.py` and its main()."""

import argparse
import os
import sys
from pathlib import Path

from d2_isonet.utils.messages import readable_errors

from .cells import Folders, Table, arguments, command, jobs_of, read_result, select, with_processes
from .documents import DEFAULT_SEEDS, fill
from .report import draw_figure3, write_report
from .runner import Job, run_jobs
from .small import data_arguments, prepare
from .tables import TABLES
from .training_run import REPOSITORY

DESCRIPTION = """Reproduce tables of the papers and print our results beside the papers'.

python tools/reproduce.py table6                  run what is missing, then print (small scale)
python tools/reproduce.py table1 --show           print what has been run so far
python tools/reproduce.py table5 --scale full --dry-run    print the commands of the real runs
"""


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("table", nargs="+", choices=[*TABLES, "all"])
    add("--scale", choices=("small", "full"), default="small")
    add("--rows", nargs="+", metavar="TEXT",
        help="only rows with this name (falls back to substring match)")  # fmt: skip
    add("--columns", nargs="+", metavar="TEXT", help="the same for columns")
    add("--seeds", type=positive, default=DEFAULT_SEEDS, metavar="N",
        help="run seeds 1 to N (default: 3)")  # fmt: skip
    add("--jobs", type=positive, metavar="N",
        help="cells that run at a time (default: small: CPU cores, full: 1)")  # fmt: skip
    add("--threads", type=positive, default=1, metavar="N",
        help="CPU threads of a small cell (default: 1)")  # fmt: skip
    add("--num-gpus", type=positive, default=8, metavar="N",
        help="GPUs of a full run (default: 8)")  # fmt: skip
    add("--show", action="store_true", help="print the stored results, run nothing")
    add("--dry-run", action="store_true", help="print the commands, run nothing")
    add("--page", type=Path, help="write the tables between the marks of this page (RESULTS.md)")
    add("--results", type=Path, default=REPOSITORY / "results",
        help="folder of the stored results (default: results/ of the repository)")  # fmt: skip
    add("--output", type=Path, default=Path("output/reproduce"),
        help="folder of trainings and pictures (default: output/reproduce)")  # fmt: skip
    add("--data", type=Path, default=Path("output/reproduce/data"),
        help="folder of the images (default: output/reproduce/data)")  # fmt: skip
    args = parser.parse_args(words)
    if args.page and (args.rows or args.columns):
        parser.error("--page writes whole tables: leave out --rows and --columns")
    if args.page and not args.page.is_file():
        parser.error(f"--page: there is no file {args.page}")
    if args.scale == "full":
        args.threads = 0  # the script's own number
    args.jobs = args.jobs or (os.cpu_count() if args.scale == "small" else 1)
    return args


def chosen_tables(args: argparse.Namespace) -> list[Table]:
    """The tables with the chosen rows and columns; ends the program if none is left."""
    names = list(TABLES) if "all" in args.table else args.table
    tables = [with_processes(TABLES[name](args.scale), args.num_gpus) for name in names]
    rows = {row.label: None for table in tables for row in table.rows}
    columns = {column: None for table in tables for column in table.columns}
    unknown = [
        text
        for texts, labels in ((args.rows, rows), (args.columns, columns))
        for text in texts or ()
        if not any(text in label for label in labels)
    ]
    selected = (select(table, args.rows, args.columns) for table in tables)
    found = [table for table in selected if table.rows and table.columns]
    if unknown or not found:  # or rows of one table, columns of another
        texts = ", ".join(unknown or [*(args.rows or ()), *(args.columns or ())])
        shown = f"rows: {', '.join(map(repr, rows))}; columns: {', '.join(map(repr, columns))}"
        sys.exit(f"error: no row or column {texts}; {shown}")
    return found


def run(args: argparse.Namespace) -> int:
    """Print the commands, or run what is missing and print the tables; returns the exit code."""
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


def print_commands(jobs: list[Job], folders: Folders) -> None:
    """Print a line for each cell and learning rate, and whether the cell has a result."""
    for cell, seed in jobs:
        done = " (has a result)" if read_result(folders, cell, seed) else ""
        weights = cell.weights
        if weights and weights.learning_rates and not read_result(folders, weights, seed):
            done += f"; its weights: of the best rateR below {folders.training(weights, seed)}"
        print(f"# {cell.name}, seed {seed}{done}")
        for rate in cell.learning_rates or (None,):
            words = arguments(cell, seed, folders, data_arguments(cell, folders.data), rate)
            print(command(cell, words))


def show(args: argparse.Namespace, tables: list[Table], folders: Folders) -> None:
    """Print the tables; write their json, their pictures and, with --page, the page."""
    for table in tables:
        write_report(table, folders, args.seeds, folders.output)
    histogram = draw_figure3(args.scale, folders, args.seeds, folders.output / "figure3.png")
    if histogram:
        print(f"Shifts of SReLU (figure 3): {histogram}")
    if args.page:
        fill(args.page, tables, folders, args.seeds)


def main() -> int:
    """Run, with one line for a damaged result or Ctrl-C, and quietly if `| head` ends early."""
    try:
        with readable_errors():
            code = run(parse_args())
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the rest of the buffer must not fail at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\nStopped. Finished cells are kept; the same command continues.", file=sys.stderr)
        return 130
