"""Findings of the checks before a run: a table of all, and one error that names every error."""

import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from detectron2.utils import comm
from tabulate import tabulate

from d2_isonet.utils.messages import UserError, printable, shortened

Severity = Literal["error", "warning", "fact"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "fact")
_WIDTHS = (36, 44, 36)  # columns of where, what and remedy, in characters


class Finding(NamedTuple):
    """One row of the table.

    Args:
        severity: an "error" stops the run, a "warning" does not, a "fact" is no problem.
        where: the file, the data set or the key.
        what: what was found there, with the value.
        remedy: what to do about it.
        items: all files or objects of the finding; `what` names the first ones.
    """

    severity: Severity
    where: str
    what: str
    remedy: str = ""
    items: tuple[str, ...] = ()

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return printable(f"{self.where}: {self.what}{remedy}", "message")


class Rule(NamedTuple):
    """A kind of finding on the entries of a list, which counts and names the bad ones.

    Args:
        is_bad: of an entry.
        what: stands behind the number of all entries: "3 of 7 images WITHOUT ID".
        detail: of a bad entry, shown behind its name.
    """

    severity: Severity
    is_bad: Callable[[Any], object]
    what: str
    remedy: str = ""
    detail: Callable[[Any], str] | None = None


def broken_rules(
    where: str,
    kind: str,
    entries: Sequence,
    name: Callable[[Any, int], str],
    rules: Iterable[Rule],
) -> list[Finding]:
    """A finding for each rule that some of the entries break.

    Args:
        kind: of the entries, in the plural.
        name: of an entry, from it and its place in the list.
    """
    findings = []
    for rule in rules:
        bad = [(name(entry, i), entry) for i, entry in enumerate(entries) if rule.is_bad(entry)]
        items = [f"{x} {rule.detail(entry)}" if rule.detail else x for x, entry in bad]
        what = f"of {len(entries)} {kind} {rule.what}"
        findings += found(rule.severity, where, items, what, rule.remedy)
    return findings


def found(
    severity: Severity, where: str, items: Sequence[str], what: str, remedy: str = ""
) -> list[Finding]:
    """One finding that counts the `items` and names the first ones; [] without items.

    Args:
        what: stands between their number and their names: "ids given twice".
    """
    text = f"{len(items)} {what}: {shortened(items)}"
    return [Finding(severity, where, text, remedy, tuple(items))] if items else []


def found_values(where: str, values: Sequence, what: str, remedy: str) -> list[Finding]:
    """One error that counts the `values` and names the different ones; [] without values."""
    items = [f"{value} (in {count})" for value, count in Counter(map(repr, values)).items()]
    errors = found("error", where, items, "", remedy)
    return [x._replace(what=f"{len(values)} {what}: {shortened(items)}") for x in errors]


def findings_table(findings: Iterable[Finding]) -> str:
    """A table of the findings, errors first; below it, the number of each severity."""
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    columns = ("", "where", "what", "remedy")
    rows = [(f.severity, *map(_wrap, f[1:4], _WIDTHS)) for f in ordered]
    counts = Counter(finding.severity for finding in ordered)
    total = ", ".join(f"{counts[s]} {s}{'s' * (counts[s] != 1)}" for s in SEVERITIES)
    table = tabulate(rows, columns, tablefmt="grid", disable_numparse=True) + "\n" if rows else ""
    return table + total


def _wrap(text: str, width: int) -> str:
    lines = printable(text, "message").split("\n")
    return "\n".join(x for line in lines for x in textwrap.wrap(line, width) or [""])


def raise_errors(findings: Iterable[Finding]) -> None:
    """Raise one UserError that names every error among the findings; return if there is none.

    A single error is the message. Several are listed below their number, one a line.
    """
    errors = [str(finding) for finding in findings if finding.severity == "error"]
    if len(errors) == 1:
        raise UserError(errors[0])
    if errors:
        raise UserError("\n  ".join([f"{len(errors)} things must be put right first", *errors]))


def check_once(check: Callable[[], list[Finding]]) -> list[Finding]:
    """Run `check` in the main process, print its table there, and raise its errors in all.

    Raises:
        UserError: there are errors among the findings, all in one message; or `check` raised an
            exception in the main process, which raises that exception.
    """
    findings, error = [], None
    if comm.is_main_process():
        try:
            findings = check()
        except Exception as raised:  # raised below: the other processes must not wait in vain
            error = raised
        if findings:
            print(findings_table(findings), flush=True)
    if comm.get_world_size() > 1:
        findings, failed = comm.all_gather((findings, error is not None))[0]
        if failed and error is None:
            raise UserError("the check of the data failed in the main process, which says why")
    if error is not None:
        raise error
    raise_errors(findings)
    return findings
