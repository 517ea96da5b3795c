"""Append-only files of results: one JSON object a line, the later line wins.

Several processes may append to a file at a time, and `git merge` joins what two branches have
appended (.gitattributes: merge=union). A line that a killed process has left half written is the
last one and has no end: it is skipped, and the next writer removes it. Any other line that is no
result is damage: reading stops with the file's name and the line's number.
"""

import fcntl
import functools
import json
import logging
import os
from pathlib import Path

from d2_isonet.utils.messages import UserError

_NEEDED = {
    *("cell", "seed", "measures", "attempts", "learning_rate", "seconds", "commit", "machine"),
    *("torch", "settings", "weights_learning_rate"),
}
_Results = dict[tuple[str, int], list[dict]]


def results_in(path: Path) -> _Results:
    """All results of a file by cell and seed, the latest last; {} if there is no such file.

    Raises:
        UserError: a line is no result; the message has its number.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        return {}
    return _read(path, state.st_ino, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read(path: Path, *_state: int) -> _Results:
    """What `path` holds; `_state` tells a changed file from the one that was read before."""
    results: _Results = {}
    *lines, last = path.read_bytes().split(b"\n")
    if _is_json(last):  # an editor may leave the end of the line out
        lines.append(last)
    elif last:
        message = "%s: the last line is cut off (its writer was killed) and is skipped"
        logging.getLogger(__name__).warning(message, path)
    for number, line in enumerate(lines, start=1):
        try:
            result = _result(line)
        except ValueError as error:
            remedy = "restore it, or remove it"
            raise UserError(f"{path}:{number} is no result ({error})", remedy) from error
        results.setdefault((result["cell"], result["seed"]), []).append(result)
    return results


def _result(line: bytes) -> dict:
    def refuse(constant: str) -> None:
        raise ValueError(f"it has a {constant}")

    result = json.loads(line, parse_constant=refuse)
    missing = _NEEDED - set(result if isinstance(result, dict) else ())
    if missing:
        raise ValueError(f"it has no {', '.join(sorted(missing))}")
    found = result["measures"]
    numbers = (int, float, type(None))
    if not (isinstance(found, dict) and all(isinstance(x, numbers) for x in found.values())):
        raise ValueError(f"its measures are {found!r}")
    return result


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def append(path: Path, result: dict) -> None:
    """Add a line, whole, whatever other processes append at the same time.

    Half a line at the end of the file is removed, and a whole one gets its end.

    Raises:
        ValueError: the result has a number that is not finite, which no reader accepts.
    """
    line = json.dumps(result, allow_nan=False).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        file.seek(0)
        content = file.read()
        start = content.rfind(b"\n") + 1
        if _is_json(content[start:]):
            line = b"\n" + line
        else:
            file.truncate(start)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
