"""Sections on the origin of a run: command, commit, environment, config, warnings."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import get_cfg

from d2_isonet.config.defaults import add_isonet_config
from d2_isonet.reporting.page.page import MISSING, Cell, Page

from .run import Run, flat

ABSENT = object()  # the value of a key that a config does not have
_MOST_WARNINGS = 30
_FACTS = {
    "started": "started", "kind": "kind", "commit": "commit", "processes": "processes",
    "folder": "in the folder",
}  # fmt: skip


def add_provenance(page: Page, runs: Sequence[Run]) -> None:
    page.section("Where it comes from")
    for run in runs:
        if len(runs) > 1:
            page.subsection(run.name)
        _add_starts(page, run)
    _add_environment(page, runs)


def _add_starts(page: Page, run: Run) -> None:
    weights = {e.dataset: e.about.get("weights") for e in run.evaluations}
    page.facts({f"weights evaluated on {name}": x for name, x in weights.items() if x})
    if run.records:
        trainings = [x for x in run.records if x.get("kind") != "evaluation"]
        last = (trainings or run.records)[-1]
        page.facts({name: _shown(last.get(key)) for key, name in _FACTS.items()})
        page.code(str(last.get("command", "")))
        if len(run.records) > 1:
            columns = (*_FACTS, "command")
            rows = [{c: _shown(record.get(c)) for c in columns} for record in run.records]
            page.table(rows, fold=f"All {len(rows)} starts of {run.name}")
    elif run.log.arguments:
        page.text("From log.txt, the arguments of the last start:").code(run.log.arguments)
    else:
        page.note("Neither runs.json nor log.txt has the command of the run.")
    if run.log.warnings:
        lines = [f"{n} x {message}" for message, n in run.log.warnings.most_common(_MOST_WARNINGS)]
        left = len(run.log.warnings) - len(lines)
        lines += [f"and {left} more in log.txt"] if left > 0 else []
        page.code("\n".join(lines), title=f"Warnings in log.txt ({len(run.log.warnings)})")


def _shown(value: object) -> object:
    return "not a git checkout" if value is None else value


def _add_environment(page: Page, runs: Sequence[Run]) -> None:
    """A row per version, a column per run, differences in colour."""
    recorded = {run.name: run.records[-1].get("environment") for run in runs if run.records}
    known = {name: value for name, value in recorded.items() if isinstance(value, dict)}
    keys = list(dict.fromkeys(key for values in known.values() for key in values))
    rows = []
    for key in keys:
        values = [environment.get(key) for environment in known.values()]
        kind = "bad" if len(set(map(str, values))) > 1 else ""
        rows.append([key, *(Cell(value, kind=kind) for value in values)])
    if rows:
        page.subsection("Environment").table(rows, columns=["version", *known])
    for run in runs:
        if not run.records and run.log.environment:
            page.code(run.log.environment, title=f"Environment, from log.txt: {run.name}")


def defaults() -> dict[str, Any]:
    """Every key of detectron2 and of this project with its default."""
    cfg = get_cfg()
    add_isonet_config(cfg)
    return flat(cfg)


def changed_keys(configs: Sequence[dict], base: dict[str, Any]) -> list[str]:
    """Keys by which any of the flat configs differs from `base`, sorted."""
    keys = sorted({key for config in configs for key in config})
    return [k for k in keys if not all(_agree(k, config, base) for config in configs)]


def _agree(key: str, config: dict, other: dict) -> bool:
    """Whether two configs mean the same by a key: 1 and 1.0 agree, 1 and True do not."""
    a, b = config.get(key, ABSENT), other.get(key, ABSENT)
    return a == b and (isinstance(a, bool) == isinstance(b, bool))


def add_config(page: Page, runs: Sequence[Run]) -> None:
    """The differences between the configs of several runs, and from the defaults."""
    page.section("Config")
    configs = {run.name: run.config for run in runs if run.config}
    if not configs:
        page.note("No run has a config.yaml.")
        return
    every, base = list(configs.values()), defaults()
    if len(every) > 1:
        page.subsection("Differences between the runs")
        keys = changed_keys(every, every[0])
        if keys:
            texts = [[key, *(_text_of(config, key) for config in every)] for key in keys]
            page.table(texts, ["key", *configs])
        else:
            page.text("The configs are the same.")
        page.subsection("Differences from the defaults")
    rows = [
        [key, _text_of(base, key), *(_cell(config, key, base) for config in every)]
        for key in changed_keys(every, base)
    ]
    caption = "Keys that differ from the defaults of detectron2 and d2_isonet."
    fold = "All of them" if len(every) > 1 else ""
    page.table(rows, ["key", "default", *configs], caption, fold=fold)


def _text_of(config: dict, key: str) -> str:
    value = config.get(key, ABSENT)
    return MISSING if value is ABSENT else '""' if value == "" else str(value)


def _cell(config: dict, key: str, base: dict) -> Cell:
    return Cell(_text_of(config, key), kind="muted" if _agree(key, config, base) else "")
