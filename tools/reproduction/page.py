"""RESULTS.md: the tables between its marks are written from the stored cells."""

import re
from pathlib import Path

from .cells import Folders, read_result
from .figure3 import as_markdown
from .report import as_text
from .table import Table, jobs_of

DEFAULT_SEEDS = 3
# no other mark stands between the two: where an end is missing, nothing of the page is replaced
_MARKS = r"(<!-- {name} -->\n)(?:(?!<!-- ).)*?(<!-- end -->)"


def fill(page: Path, tables: list[Table], folders: Folders, seeds: int) -> list[str]:
    """Replace what stands between `<!-- NAME -->` and `<!-- end -->`; returns the names not there.

    The words around the tables stay. At another scale than small its name follows: `table1-full`.
    """
    scale = folders.results.name
    parts = {table.name: section(table, folders, seeds) for table in tables}
    parts["figure3"] = as_markdown(scale, folders, seeds)
    if scale != "small":
        parts = {f"{name}-{scale}": part for name, part in parts.items()}
    text, missing = replace_parts(page.read_text(), parts)
    page.write_text(text)
    return missing


def replace_parts(text: str, parts: dict[str, str]) -> tuple[str, list[str]]:
    """The text with each part between its marks, and the names that have none."""
    missing = []
    for name, part in parts.items():
        marks = re.compile(_MARKS.format(name=re.escape(name)), re.DOTALL)
        if not marks.search(text):
            missing.append(name)
        text = marks.sub(lambda found, part=part: f"{found[1]}{part}{found[2]}", text)
    return text, missing


def section(table: Table, folders: Folders, seeds: int) -> str:
    """The table in markdown, and below it how many cells were run, where, and how long it took."""
    wanted = jobs_of([table], seeds)
    found = [r for cell, seed in wanted if (r := read_result(folders, cell, seed))]
    options = "" if folders.results.name == "small" else f" --scale {folders.results.name}"
    options += "" if seeds == DEFAULT_SEEDS else f" --seeds {seeds}"
    lines = [
        f"{table.title}. {', '.join(table.measures)}: ours [the paper's].",
        "",
        as_text(table, folders, seeds, "github"),
        "",
        f"`python tools/reproduce.py {table.name}{options}`; "
        f"{len(found)} of {len(wanted)} cells run{_circumstances(found)}.",
    ]
    return "\n".join(lines) + "\n"


def _circumstances(found: list[dict]) -> str:
    if not found:
        return ""
    commits, machines, versions = (
        sorted({r[key] for r in found}) for key in ("commit", "machine", "torch")
    )
    hours = sum(r["seconds"] for r in found) / 3600
    return (
        f", {hours:.1f} hours in all ({'; '.join(machines)}; torch {', '.join(versions)}; "
        f"commit {', '.join(commits)})"
    )
