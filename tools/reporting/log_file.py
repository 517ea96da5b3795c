"""What only log.txt tells: warnings, how the run ended and, of older runs, what was asked for."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

NAME = "log.txt"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LINE = re.compile(r"^\[[^\]]+\] (\S+?):? (DEBUG|INFO|WARNING|ERROR|CRITICAL): (.*)$")
_ASKED = "Command line arguments: "
_ENVIRONMENT = "Environment info"
_MAX_BYTES = 64 * 2**20  # from the end on, of a log that grew for weeks


@dataclass
class Log:
    """Attributes:
    warnings: message -> how many times.
    error: the last line of a traceback that ends the log; "" without one.
    arguments, environment: of the last start, as text.
    """

    warnings: Counter = field(default_factory=Counter)
    error: str = ""
    arguments: str = ""
    environment: str = ""


def read_log(file: Path) -> Log:
    """The log of a run; empty where there is none."""
    log = Log()
    if not file.is_file():
        return log
    lines = _text(file).split("\n")
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        if not match:
            continue
        level, message = match[2], match[3]
        if level == "WARNING":
            log.warnings[message] += 1
        if message.startswith(_ASKED):
            log.arguments, log.error = message.removeprefix(_ASKED), ""
        if message.startswith(_ENVIRONMENT):
            log.environment = _until_next_record(lines, number)
        if level == "ERROR":
            log.error = _last_line_of_traceback(lines, number) or message
    return log


def _text(file: Path) -> str:
    with open(file, "rb") as opened:
        opened.seek(max(0, file.stat().st_size - _MAX_BYTES))
        text = opened.read().decode("utf-8", errors="replace")
    return _COLOURS.sub("", text)


def _until_next_record(lines: list[str], start: int) -> str:
    end = start + 1
    while end < len(lines) and not _LINE.match(lines[end]):
        end += 1
    return "\n".join(lines[start + 1 : end]).strip()


def _last_line_of_traceback(lines: list[str], start: int) -> str:
    """ "" where no traceback follows the record."""
    following = _until_next_record(lines, start)
    return following.split("\n")[-1] if "Traceback" in following else ""
