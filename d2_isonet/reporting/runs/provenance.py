"""Sections on the origin of a run: command, commit, environment, config, warnings."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import get_cfg

from d2_isonet.config.defaults import add_isonet_config
from d2_isonet.reporting.page.page import Cell, Page

from .run import Run

ABSENT = object()  # the value of a key that a config does not have


def defaults() -> dict[str, Any]:
    """Every key of detectron2 and of this project with its default."""
    cfg = get_cfg()
    add_isonet_config(cfg)
    return flat(cfg)


def flat(config: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as {"SOLVER.BASE_LR": 0.1, ...}; tuples become lists, as in yaml."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            values.update(flat(value, f"{name}."))
        else:
            values[name] = _as_yaml(value)
    return values


def _as_yaml(value: Any) -> Any:
    return [_as_yaml(x) for x in value] if isinstance(value, tuple | list) else value


def changed_keys(configs: Sequence[dict], base: dict[str, Any]) -> list[str]:
    """Keys that differ from the defaults in any of the flat configs, sorted."""
    keys = sorted({key for config in configs for key in config})
    return [k for k in keys if not all(_agree(k, config, base) for config in configs)]


def differing_keys(configs: Sequence[dict]) -> list[str]:
    """Keys that differ between the flat configs, sorted."""
    return changed_keys(configs, configs[0])


def _agree(key: str, config: dict, other: dict) -> bool:
    """Whether two configs mean the same by a key: 1 and 1.0 agree, 1 and True do not."""
    a, b = config.get(key, ABSENT), other.get(key, ABSENT)
    return a == b and (isinstance(a, bool) == isinstance(b, bool))


def _text_of(value: Any) -> str:
    return "–" if value is ABSENT else '""' if value == "" else str(value)


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
    if run.records:
        last = run.records[-1]
        page.facts({name: _shown(last.get(key)) for key, name in _FACTS.items()})
        page.code(str(last.get("command", "")))
        if len(run.records) > 1:
            page.table(
                [
                    {c: _shown(record.get(c)) for c in (*_FACTS, "command")}
                    for record in run.records
                ],
                fold=f"All {len(run.records)} starts of {run.name}",
            )
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


def add_config(page: Page, runs: Sequence[Run]) -> None:
    """The differences between the configs of several runs, and from the defaults."""
    page.section("Config")
    with_config = [run for run in runs if run.config]
    if not with_config:
        page.note("No run has a config.yaml.")
        return
    names, base = [run.name for run in with_config], defaults()
    configs = [flat(run.config) for run in with_config]
    if len(with_config) > 1:
        _add_differences(page, configs, names)
    rows = [
        [key, _text_of(base.get(key, ABSENT)), *(_cell(c, key, base) for c in configs)]
        for key in changed_keys(configs, base)
    ]
    several = len(with_config) > 1
    if several:
        page.subsection("Differences from the defaults")
    caption = "Keys that differ from the defaults of detectron2 and d2_isonet."
    page.table(rows, ["key", "default", *names], caption, fold="All of them" if several else "")


def _add_differences(page: Page, configs: list[dict], names: list[str]) -> None:
    page.subsection("Differences between the runs")
    keys = differing_keys(configs)
    if not keys:
        page.text("The configs are the same.")
        return
    rows = [[key, *(_text_of(config.get(key, ABSENT)) for config in configs)] for key in keys]
    page.table(rows, ["key", *names])


def _cell(config: dict, key: str, base: dict) -> Cell:
    is_default = _agree(key, config, base)
    return Cell(_text_of(config.get(key, ABSENT)), kind="muted" if is_default else "")
