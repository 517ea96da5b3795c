"""The arguments of a script, parsed by the script itself, which then goes no further."""

import argparse
import contextlib
import io
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

# Words that stand for what the reader fills in, where a parser or a config would not take them.
_FILLED_IN = {"N": "2", "k": "2", "FILE": "configs/risonet18_fpn.yaml", "RANK": "1"}


class _Parsed(BaseException):  # not Exception: scripts catch those
    def __init__(self, namespace: argparse.Namespace):
        self.namespace = namespace


def parse(script: Path, arguments: list[str]) -> argparse.Namespace:
    """What the script's parser makes of the arguments; nothing behind it is run.

    Raises:
        ValueError: it refuses them, with its message.
    """
    words = [_FILLED_IN.get(word, word) for word in arguments]
    if words == ["--help"]:
        return argparse.Namespace()
    said = io.StringIO()
    try:
        with _as_command(script, words), contextlib.redirect_stderr(said):
            runpy.run_path(str(script), run_name="__main__")
    except _Parsed as parsed:
        return parsed.namespace
    except SystemExit as error:
        refusal = said.getvalue().strip().splitlines() or [str(error)]
        raise ValueError(refusal[-1]) from error
    raise ValueError(f"{script.name} reads no arguments")


@contextlib.contextmanager
def _as_command(script: Path, words: list[str]) -> Iterator[None]:
    """Within, the script finds its arguments and its folder, and its parser raises _Parsed."""
    parse_known_args = argparse.ArgumentParser.parse_known_args

    def stop(self, args=None, namespace=None):
        namespace, left = parse_known_args(self, args, namespace)
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}")
        raise _Parsed(namespace)

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_known_args", stop),
        mock.patch.object(sys, "argv", [str(script), *words]),
        mock.patch.object(sys, "path", [str(script.parent), *sys.path]),
    ):
        yield
