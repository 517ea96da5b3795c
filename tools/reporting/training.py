"""Sections on the course of a training: losses, learning rate, penalty, speed, results in time."""

from collections.abc import Sequence

from pages import Page

from .figures import curves
from .run import Run

_PENALTY = "ortho/"
# Drawn in panels of their own; what is left is under "other quantities".
_SPEED = {"time": "seconds an iteration", "data_time": "seconds an iteration waits for data"}
_NOT_DRAWN = {"eta_seconds", "total_loss", "lr", *_SPEED}
_MAIN = (
    "bbox/AP",
    "bbox/AP50",
    "segm/AP",
    "segm/AP50",
    "classification/top1",
    "classification/top5",
)


def add_training(page: Page, runs: Sequence[Run]) -> None:
    """Loss, rate, penalty and speed; says which of them the runs do not have."""
    page.section(
        "Training", "The values of metrics.json: each is the median of the last 20 iterations."
    )
    names = [run.name for run in runs]
    if not any(run.metrics.steps for run in runs):
        page.note("There is no record of a training step.")
        return
    losses = [key for key in _all_keys(runs) if key.startswith("loss_") and key != "loss_ortho"]
    main = {"total_loss": "total loss", "lr": "learning rate", **{key: key for key in losses}}
    _add(page, runs, main, "Losses, and the learning rate of the first parameter group.")
    _add_penalty(page, runs)
    _add(page, runs, _SPEED, "Speed.")
    others = [
        k for k in _all_keys(runs) if k not in _NOT_DRAWN and not k.startswith(("loss_", _PENALTY))
    ]
    panels = {key: {run.name: run.metrics.series(key) for run in runs} for key in others}
    figure = curves(panels, names)
    if figure:
        page.figure(figure, "Other quantities, as detectron2 records them.")


def _all_keys(runs: Sequence[Run]) -> list[str]:
    return sorted({key for run in runs for key in run.metrics.keys()})


def _add(
    page: Page, runs: Sequence[Run], keys: dict[str, str], caption: str, markers: bool = False
) -> None:
    panels = {
        title: {run.name: run.metrics.series(key) for run in runs} for key, title in keys.items()
    }
    figure = curves(panels, [run.name for run in runs], markers)
    if figure:
        page.figure(figure, caption)


def _add_penalty(page: Page, runs: Sequence[Run]) -> None:
    stages = [key for key in _all_keys(runs) if key.startswith(_PENALTY)]
    keys = {"loss_ortho": "all convolutions", **{key: key.removeprefix(_PENALTY) for key in stages}}
    if any(run.metrics.series("loss_ortho")[0] for run in runs):
        caption = (
            "Excess penalty: how far the convolutions are from orthogonal, 0 being as orthogonal "
            "as their shapes can be; before the coefficient SOLVER.ORTHO_COEFF."
        )
        _add(page, runs, keys, caption)
    without = [
        run.name for run in runs if run.metrics.steps and not run.metrics.series("loss_ortho")[0]
    ]
    if without:
        page.note(f"No excess penalty is recorded (SOLVER.ORTHO_COEFF 0): {', '.join(without)}.")


def add_results_in_time(page: Page, runs: Sequence[Run]) -> None:
    """AP or top-1 after each evaluation, and all of its numbers in a folded table."""
    page.section("Results in time")
    if not any(run.metrics.evaluations for run in runs):
        page.note(
            "No evaluation is recorded in metrics.json: the training did not come to one "
            "(TEST.EVAL_PERIOD), or this was an evaluation alone."
        )
        return
    _add(
        page,
        runs,
        {key: key for key in _main_results(runs)},
        "After each evaluation.",
        markers=True,
    )
    for run in runs:
        if run.metrics.evaluations:
            results = run.metrics.results()
            page.table(
                run.metrics.evaluations, columns=["iteration", *results],
                fold=f"Every evaluation: {run.name}", formats=dict.fromkeys(results, ".2f"),
            )  # fmt: skip


def _main_results(runs: Sequence[Run]) -> list[str]:
    """The main numbers that any run has; of several data sets, those of each."""
    every = list(dict.fromkeys(key for run in runs for key in run.metrics.results()))
    return [key for key in every if key.endswith(_MAIN)]
