"""Checks that a command would run: its program parses the arguments, its config is loaded."""

import argparse
import contextlib
import functools
import importlib.util
import io
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from .markdown import ROOT
from .names import has

_PACKAGE = "d2_isonet"  # `d2-isonet COMMAND` and `python -m d2_isonet COMMAND` run it
# Words that a reader replaces, with a value that parsers and configs accept.
_FILLED_IN = {"N": "2", "k": "2", "FILE": "configs/risonet18_fpn.yaml", "RANK": "1"}
# Programs whose commands are not checked, and why.
_LEFT_ALONE = {
    **dict.fromkeys((".", "cd", "export", "source"), "the shell's"),
    "git": "needs the network",
    "rsync": "needs another machine",
    "docker": "needs a Docker engine",
    "pre-commit": "tests/project/test_project_files.py checks its hooks",
}


@functools.cache
def problem_of(words: tuple[str, ...]) -> str:
    """Why the command would fail; "" if it would run."""
    check = PROGRAMS.get(words[0])
    if check is None:
        return (
            f"{words[0]} is no program that tools/documents/programs.py knows: add it there, or "
            "put <!-- not run: REASON --> above the block"
        )
    try:
        check(list(words[1:]))
    except (Exception, SystemExit) as error:  # a program may refuse its arguments in any way
        return str(error) or "it cannot be parsed"
    return ""


def why_left_alone(words: tuple[str, ...]) -> str:
    """Why only the program's name is checked; "" if the arguments are checked too."""
    return _LEFT_ALONE.get(Path(words[0]).name, "")


def _check_own(program: str, arguments: list[str]) -> None:
    """Let a program of this repository parse the arguments; load the config that they name."""
    from d2_isonet.commands.arguments import config_path
    from d2_isonet.config.loading import load_config
    from d2_isonet.engine.lazy_training import read_lazy_config

    parsed = parse(program, arguments)
    config = config_path(getattr(parsed, "config_file", "") or "")
    if (ROOT / config).is_file():
        load = read_lazy_config if config.endswith(".py") else load_config
        load(str(ROOT / config), list(getattr(parsed, "opts", None) or []))
    elif config.startswith("configs/") and not has(re.sub("[A-Z]{3,}", "*", config)):  # NAME: any
        raise ValueError(f"there is no {config}")


def parse(program: str, arguments: list[str]) -> argparse.Namespace:
    """Run a program until its parser has read the arguments; return what it has read.

    Raises:
        ValueError: the program refuses the arguments; the message is the program's own.
    """
    path, errors = ROOT / program, io.StringIO()
    if program != _PACKAGE and not path.is_file():
        raise ValueError(f"there is no {program}")
    words = [_FILLED_IN.get(word, word) for word in arguments]
    try:
        with (
            mock.patch.object(argparse.ArgumentParser, "parse_known_args", _parse_and_stop),
            mock.patch.object(sys, "argv", [program, *words]),
            mock.patch.object(sys, "path", [*sys.path, str(path.parent)]),  # as python SCRIPT does
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(errors),
        ):
            if program == _PACKAGE:
                runpy.run_module(program, run_name="__main__")
            else:
                runpy.run_path(str(path), run_name="__main__")
    except _Parsed as parsed:
        return parsed.args[0]
    except SystemExit as end:
        if not end.code:  # after --help or --version
            return argparse.Namespace()
        raise ValueError((errors.getvalue().strip().splitlines() or [str(end)])[-1]) from end
    raise ValueError(f"{program} reads no arguments")


class _Parsed(BaseException):
    """Ends a program and holds the arguments that it has read; programs catch every Exception."""


_parse_known_args = argparse.ArgumentParser.parse_known_args


def _parse_and_stop(parser: argparse.ArgumentParser, args=None, namespace=None) -> None:
    namespace, left = _parse_known_args(parser, args, namespace)
    if left:
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    raise _Parsed(namespace)


def _check_python(words: list[str]) -> None:
    match words:
        case ["-m", ("pip" | "pytest") as program, *arguments]:
            PROGRAMS[program](arguments)
        case ["-m", program, *arguments] if program == _PACKAGE:
            _check_own(program, arguments)
        case ["-m", module, *_]:
            if importlib.util.find_spec(module) is None:
                raise ValueError(f"there is no module {module}")
        case ["-c", code, *_]:
            compile(code, "-c", "exec")
        case [script, *arguments]:
            _check_own(script, arguments)


def _check_pytest(words: list[str]) -> None:
    """The files exist, and the tests of `file.py::name`."""
    for word in words:
        file, _, name = word.partition("::")
        if file.endswith(".py") and not has(file):
            raise ValueError(f"there is no {file}")
        if name and f"def {name.split('[')[0]}(" not in (ROOT / file).read_text("utf-8"):
            raise ValueError(f"{file} has no {name}")


def _check_pip(words: list[str]) -> None:
    """The folders and extras that pip installs exist."""
    setup = (ROOT / "setup.py").read_text("utf-8")
    for word in words[1:]:
        folder = re.match(r"\.[\w./]*", word)
        if folder and not (ROOT / folder[0]).is_dir():
            raise ValueError(f"there is no {folder[0]}")
        extras = re.search(r"^(?:\.|d2_isonet)\[([\w,-]+)\]", word)
        for extra in extras[1].split(",") if extras else ():
            if f'"{extra}": [' not in setup:
                raise ValueError(f"setup.py has no extra {extra}")


def _check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for word in words:
        name, is_variable, _ = word.partition("=")
        pattern = rf"^{name} \?=" if is_variable else rf"^{name}:"
        if not re.search(pattern, makefile, re.MULTILINE):
            raise ValueError(f"the Makefile has no {name}")


def _check_torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    parsed = get_args_parser().parse_args(words)
    _check_own(parsed.training_script, parsed.training_script_args)


def _check_sbatch(words: list[str]) -> None:
    """The sbatch file exists; it hands the words after it to torchrun."""
    job = next((i for i, word in enumerate(words) if word.endswith(".sbatch")), None)
    if job is None or not (ROOT / words[job]).is_file():
        raise ValueError("there is no such sbatch file")
    _check_torchrun(words[job + 1 :])


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "d2-isonet": functools.partial(_check_own, _PACKAGE),
    "make": _check_make,
    "pip": _check_pip,
    "pytest": _check_pytest,
    "sbatch": _check_sbatch,
    **dict.fromkeys(("python", ".venv/bin/python"), _check_python),
    **dict.fromkeys(("torchrun", ".venv/bin/torchrun"), _check_torchrun),
    **dict.fromkeys((*_LEFT_ALONE, ".venv/bin/pre-commit"), lambda words: None),  # not checked
}
