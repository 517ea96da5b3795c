"""The top of the page: the main results at a glance, and what is missing."""

import statistics
from collections.abc import Sequence

from d2_isonet.reporting.page.page import Cell, Page

from .detection_sections import delta
from .run import Run, option, result_keys

# of the last evaluation
_RESULTS = {
    "bbox/AP": "box AP", "bbox/AP50": "box AP50", "bbox/AP75": "box AP75",
    "segm/AP": "mask AP", "segm/AP50": "mask AP50", "segm/AP75": "mask AP75",
    "classification/top1": "top-1 %", "classification/top5": "top-5 %",
}  # fmt: skip


def add_summary(page: Page, runs: Sequence[Run]) -> None:
    if len(runs) == 1:
        _add_tiles(page, runs[0])
    else:
        _add_table(page, runs)
    for run in runs:
        for note in run.notes:
            page.note(f"{run.name}: {note}" if len(runs) > 1 else note, "warning")


def _add_tiles(page: Page, run: Run) -> None:
    last = {_title(key): run.metrics.last(key) for key in _keys([run])}
    tiles = {name: f"{value:.1f}" for name, value in last.items() if value is not None}
    tiles |= {name: value for name, value in _course(run).items() if value is not None}
    page.section("Summary", "The last evaluation, and the state of the training.")
    page.numbers(tiles)


def _add_table(page: Page, runs: Sequence[Run]) -> None:
    """A row per quantity; per run a column and, from the second on, the change from the first."""
    page.section("Summary", f"Changes are relative to {runs[0].name}.")
    columns = ["quantity", runs[0].name]
    for run in runs[1:]:
        columns += [run.name, f"change, {run.name}"]
    rows = [_row(_title(key), [run.metrics.last(key) for run in runs]) for key in _keys(runs)]
    courses = [_course(run) for run in runs]
    for name in courses[0]:
        first, *others = [course[name] for course in courses]
        rows.append([name, first, *(x for value in others for x in (value, Cell(None, " ")))])
    page.table(rows, columns)


def _row(title: str, values: list[float | None]) -> list:
    row = [title, _cell(values[0])]
    for value in values[1:]:
        row += [_cell(value), delta(value, values[0])]
    return row


def _cell(value: float | None) -> Cell:
    return Cell(value, "" if value is None else f"{value:.1f}")


def _keys(runs: Sequence[Run]) -> list[str]:
    """The main results of any run; with several data sets, their name stands before them."""
    every = result_keys(runs)
    return [key for main in _RESULTS for key in every if key == main or key.endswith(f"/{main}")]


def _title(key: str) -> str:
    main = next(main for main in _RESULTS if key.endswith(main))
    dataset = key.removesuffix(main).strip("/")
    return f"{_RESULTS[main]}, {dataset}" if dataset else _RESULTS[main]


def _course(run: Run) -> dict[str, str | None]:
    """Progress, loss, penalty and speed of the training; None if not recorded."""
    steps, total = run.metrics.steps, option(run.config, "SOLVER.MAX_ITER")
    iteration = f"{steps[-1]['iteration'] + 1} of {total or '?'}" if steps else None
    values: dict[str, str | None] = {"iterations": iteration}
    for name, key in (("loss", "total_loss"), ("excess penalty", "loss_ortho")):
        value = run.metrics.last(key)
        values[name] = None if value is None else f"{value:.4g}"
    seconds = run.metrics.series("time")[1]
    values["seconds per iteration"] = f"{statistics.median_high(seconds):.3g}" if seconds else None
    return values
