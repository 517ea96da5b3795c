"""What make_shards.py has finished in an output folder: a killed run goes on, no other joins in."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from d2_isonet.shard_index import FORMAT, INDEX_NAME, JOURNAL_NAME, VERSION
from sharding.plan import Plan

_ANOTHER = (
    "give the folder, sizes and seed that they were made with, or another --output (or remove it)"
)


def is_finished(output: Path, plan: Plan) -> bool:
    """Whether `output` holds the index of this plan's shards.

    Raises:
        ValueError: it holds that of others, or tar files of unknown origin.
    """
    index = output / INDEX_NAME
    if index.is_file():
        if _parsed(index, index.read_text()).get("plan") != plan.sha256:
            raise ValueError(f"{output} holds the finished shards of other images; {_ANOTHER}")
        return True
    strangers = [] if (output / JOURNAL_NAME).is_file() else sorted(output.glob("*.tar"))
    if strangers:
        raise ValueError(
            f"{output} holds {strangers[0].name} and {len(strangers) - 1} more tar files that are "
            "not known here; give an empty --output"
        )
    return False


class Journal:
    """Lines of json: the plan's sha256, then the index entry of each finished shard."""

    def __init__(self, output: Path, file, entries: dict[str, dict]):
        self.output, self._file, self.entries = output, file, entries

    def add(self, entry: dict) -> None:
        self.entries[entry["file"]] = entry
        self._write(entry)

    def _write(self, line: dict) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def start(self, plan: Plan) -> None:
        """Take over what an earlier run with this plan has finished and is still there.

        Raises:
            ValueError: that run had another plan.
        """
        self._file.seek(0)
        text = self._file.read()
        text = text[: text.rfind("\n") + 1]  # a kill may have cut the last line
        self._file.truncate(len(text.encode()))
        lines = [_parsed(self.output / JOURNAL_NAME, line) for line in text.splitlines()]
        if not lines:
            self._write({"plan": plan.sha256})
            return
        if lines[0].get("plan") != plan.sha256:
            raise ValueError(f"{self.output} holds unfinished shards of other images; {_ANOTHER}")
        for entry in lines[1:]:
            path = self.output / entry["file"]
            if path.is_file() and path.stat().st_size == entry["bytes"]:
                self.entries[entry["file"]] = entry

    def finish(self, plan: Plan) -> None:
        """Write the index, which makes the set complete, and remove the journal."""
        splits: dict[str, dict] = {}
        for shard in plan.shards:
            split = splits.setdefault(shard.split, {"samples": 0, "shards": []})
            split["samples"] += len(shard.images)
            split["shards"].append(self.entries[shard.file])
        index = {"format": FORMAT, "version": VERSION, "plan": plan.sha256, "seed": plan.seed}
        index |= {"classes": plan.classes, "splits": splits}
        partial = self.output / f"{INDEX_NAME}.partial"
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(index, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.output / INDEX_NAME)
        (self.output / JOURNAL_NAME).unlink()


def _parsed(path: Path, text: str) -> dict:
    """
    Raises:
        ValueError: `text`, of the file `path`, is not the json of an object.
    """
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError(f"{path} is damaged; give another --output, or remove its folder")
    return parsed


@contextlib.contextmanager
def open_journal(output: Path) -> Iterator[Journal]:
    """The journal of `output`, which is made, for this process alone.

    Raises:
        ValueError: another process has it open.
    """
    output.mkdir(parents=True, exist_ok=True)
    with open(output / JOURNAL_NAME, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"Another make_shards.py is writing to {output}") from error
        yield Journal(output, file, {})
