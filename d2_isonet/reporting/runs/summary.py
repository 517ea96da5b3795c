"""The top of the page: what came out, in one look, and what is missing."""

from collections.abc import Sequence

from d2_isonet.reporting.page.page import Page
from d2_isonet.reporting.page.tables import Cell

from .detection_sections import delta
from .run import Run, option

# of the last evaluation; "seg" for masks as in the log
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
    tiles = {}
    for key in _keys([run]):
        value = run.metrics.last(key)
        if value is not None:
            tiles[_title(key)] = f"{value:.1f}"
    values = _course(run)
    tiles |= {name: value for name, value in values.items() if value is not None}
    page.section("Summary", "The last evaluation, and where the training has come to.")
    page.numbers(tiles)


def _add_table(page: Page, runs: Sequence[Run]) -> None:
    """A row a quantity, a column a run and, from the second on, its change against the first."""
    page.section("Summary", f"Changes are against {runs[0].name}.")
    columns = ["quantity", runs[0].name]
    for run in runs[1:]:
        columns += [run.name, f"change, {run.name}"]
    rows = [_row(_title(key), [run.metrics.last(key) for run in runs]) for key in _keys(runs)]
    courses = [_course(run) for run in runs]
    for name in dict.fromkeys(name for course in courses for name in course):
        values = [course.get(name) for course in courses]
        rows.append(_row(name, values, compare=False))
    page.table(rows, columns)


def _row(title: str, values: list, compare: bool = True) -> list:
    shown = [
        Cell(v, f"{v:.1f}") if compare and v is not None else Cell(v, "" if v is not None else "–")
        for v in values
    ]
    row = [title, shown[0]]
    for value, cell in zip(values[1:], shown[1:], strict=True):
        row += [cell, delta(value, values[0]) if compare else Cell(None, " ")]
    return row


def _keys(runs: Sequence[Run]) -> list[str]:
    """The main results that any run has; several data sets put their name before them."""
    every = list(dict.fromkeys(key for run in runs for key in run.metrics.results()))
    return [key for main in _RESULTS for key in every if key == main or key.endswith(f"/{main}")]


def _title(key: str) -> str:
    main = next(main for main in _RESULTS if key.endswith(main))
    dataset = key.removesuffix(main).strip("/")
    return f"{_RESULTS[main]}, {dataset}" if dataset else _RESULTS[main]


def _course(run: Run) -> dict:
    """How far the training is, its loss, penalty and speed; None for what is not recorded."""
    steps, total = run.metrics.steps, option(run.config, "SOLVER.MAX_ITER")
    iteration = f"{steps[-1]['iteration'] + 1} of {total or '?'}" if steps else None
    values = {"iterations": iteration}
    for name, key in (("loss", "total_loss"), ("excess penalty", "loss_ortho")):
        value = run.metrics.last(key)
        values[name] = None if value is None else f"{value:.4g}"
    seconds = run.metrics.series("time")[1]
    median = sorted(seconds)[len(seconds) // 2] if seconds else None
    values["seconds an iteration"] = None if median is None else f"{median:.3g}"
    return values
