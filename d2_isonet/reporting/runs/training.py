"""Sections on the course of a training: losses, learning rate, penalty, speed, evaluations."""

import statistics
from collections import defaultdict
from collections.abc import Sequence

from d2_isonet.reporting.figures import Series, curves
from d2_isonet.reporting.page.page import Page

from .run import Run, result_keys

_PENALTY = "ortho/"
# TEST.ISOMETRY_PERIOD records isometry/<quantity>/<stage or block>.
_ISOMETRY = "isometry/"
_QUANTITIES = {
    "singular_value_min": "smallest singular value",
    "singular_value_max": "largest singular value",
    "near_one": "share of singular values in 0.9 to 1.1",
    "shift_mean": "mean of the shifts",
    "residual_scale": "residual scale",
    "rms": "root mean square of a block's output",
    "gradient": "norm of the loss's gradient at the output",
}
# These have their own panels; the rest is under "Other quantities".
_SPEED = {"time": "seconds per iteration", "data_time": "seconds per iteration waiting for data"}
_NOT_DRAWN = {"eta_seconds", "total_loss", "lr", *_SPEED}
_MAIN = ("bbox/AP", "bbox/AP50", "segm/AP", "segm/AP50", "classification/top1",
         "classification/top5")  # fmt: skip


def add_training(page: Page, runs: Sequence[Run]) -> None:
    """Losses, rate, penalty and speed, and notes on the missing ones."""
    page.section(
        "Training", "From metrics.json: each value is the median of the last 20 iterations."
    )
    if not any(run.metrics.steps for run in runs):
        page.note("There is no record of a training step.")
        return
    keys = sorted({key for run in runs for key in run.metrics.keys()})
    losses = [key for key in keys if key.startswith("loss_") and key != "loss_ortho"]
    main = {"total_loss": "total loss", "lr": "learning rate", **{key: key for key in losses}}
    _add(page, runs, main, "Losses, and the learning rate of the first parameter group.")
    stages = {key: key.removeprefix(_PENALTY) for key in keys if key.startswith(_PENALTY)}
    _add_penalty(page, runs, {"loss_ortho": "all convolutions", **stages})
    _add(page, runs, _SPEED, "Speed.")
    for run in runs:
        _add_isometry(page, run)
    drawn = ("loss_", _PENALTY, _ISOMETRY)
    others = [key for key in keys if key not in _NOT_DRAWN and not key.startswith(drawn)]
    _add(page, runs, {k: k for k in others}, "Other quantities, as detectron2 records them.")


def _add(
    page: Page, runs: Sequence[Run], keys: dict[str, str], caption: str, markers: bool = False
) -> None:
    """A panel per quantity, from its key to its title, and a line per run."""
    panels = {
        title: {run.name: run.metrics.series(key) for run in runs} for key, title in keys.items()
    }
    figure = curves(panels, [run.name for run in runs], markers)
    if figure:
        page.figure(figure, caption)


def _add_penalty(page: Page, runs: Sequence[Run], keys: dict[str, str]) -> None:
    without = [run for run in runs if run.metrics.last("loss_ortho") is None]
    if len(without) < len(runs):
        caption = (
            "Excess penalty, without the coefficient SOLVER.ORTHO_COEFF: 0 is as orthogonal as "
            "the shapes of the convolutions allow."
        )
        _add(page, runs, keys, caption)
    names = ", ".join(run.name for run in without if run.metrics.steps)
    if names:
        page.note(f"No excess penalty is recorded (SOLVER.ORTHO_COEFF 0): {names}.")


def _add_isometry(page: Page, run: Run) -> None:
    """A panel per quantity, a line per stage: the mean of its blocks."""
    panels: dict[str, dict[str, Series]] = {title: {} for title in _QUANTITIES.values()}
    values = defaultdict(list)  # (title, stage, iteration) -> of each block
    for key in run.metrics.keys():
        quantity, _, place = key.removeprefix(_ISOMETRY).partition("/")
        if key.startswith(_ISOMETRY) and quantity in _QUANTITIES:
            title, stage = _QUANTITIES[quantity], place.split(".")[0]
            panels[title][stage] = ([], [])
            for iteration, value in zip(*run.metrics.series(key), strict=True):
                values[title, stage, iteration].append(value)
    for (title, stage, iteration), own in sorted(values.items()):
        iterations, means = panels[title][stage]
        iterations.append(iteration)
        means.append(statistics.fmean(own))
    stages = sorted({s for lines in panels.values() for s in lines}, key=lambda s: (s != "stem", s))
    figure = curves(panels, stages, markers=True)
    if figure:
        page.figure(figure, f"Isometry of {run.name} by stage, as TEST.ISOMETRY_PERIOD records it.")


def add_results_in_time(page: Page, runs: Sequence[Run]) -> None:
    """AP or top-1 after each evaluation, and all numbers in a folded table."""
    page.section("Results over time")
    if not any(run.metrics.evaluations for run in runs):
        page.note(
            "No evaluation is recorded in metrics.json: the training did not reach one "
            "(TEST.EVAL_PERIOD), or the run only evaluated."
        )
        return
    main = {key: key for key in result_keys(runs) if key.endswith(_MAIN)}
    _add(page, runs, main, "After each evaluation.", markers=True)
    for run in runs:
        if run.metrics.evaluations:
            results = run.metrics.results()
            page.table(
                run.metrics.evaluations, columns=["iteration", *results],
                fold=f"Every evaluation: {run.name}", formats=dict.fromkeys(results, ".2f"),
            )  # fmt: skip
