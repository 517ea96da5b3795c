"""What is done with a command, by its program, to see that it would still run."""

import functools
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

from .parsing import parse
from .repository import ROOT, has

# Programs whose commands are not looked into, and why.
_LEFT_ALONE = {
    ".": "the shell's",
    "cd": "the shell's",
    "export": "the shell's",
    "source": "the shell's",
    "git": "needs the network",
    "rsync": "needs another machine",
    "docker": "needs a Docker engine",
    "pre-commit": "tests/project/test_project_files.py checks its hooks",
}


def _checked_script(script: str, arguments: list[str]) -> None:
    """A script of ours parses the arguments; its config files, and pairs for them, are loaded."""
    if not (ROOT / script).is_file():
        raise ValueError(f"there is no {script}")
    parsed = parse(ROOT / script, arguments)
    config = getattr(parsed, "config_file", "") or ""
    if (ROOT / config).is_file():
        _load(ROOT / config, list(getattr(parsed, "opts", None) or []))
    elif config.startswith("configs/") and not has(re.sub("[A-Z]{3,}", "*", config)):  # NAME: any
        raise ValueError(f"there is no {config}")


def _load(config: Path, pairs: list[str]) -> None:
    if config.suffix == ".py":
        from d2_isonet.engine.lazy_training import read_lazy_config

        read_lazy_config(str(config), pairs)
    else:
        from d2_isonet.config.loading import load_config

        load_config(str(config), pairs)


def _python(words: list[str]) -> None:
    if words[:2] == ["-m", "pip"]:
        return _pip(words[2:])
    if words[:2] == ["-m", "pytest"]:
        return _pytest(words[2:])
    if words[0] == "-m":
        return _module(words[1])
    if words[0] == "-c":
        compile(words[1], "-c", "exec")
        return None
    return _checked_script(words[0], words[1:])


def _module(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"there is no module {name}")


def _pytest(words: list[str]) -> None:
    """Files and tests are there; a test as `file.py::name`."""
    for word in words:
        file, _, name = word.partition("::")
        if file.endswith(".py") and not has(file):
            raise ValueError(f"there is no {file}")
        if name and f"def {name.split('[')[0]}(" not in (ROOT / file).read_text("utf-8"):
            raise ValueError(f"{file} has no {name}")


def _pip(words: list[str]) -> None:
    """Folders and extras that pip is asked for are there."""
    setup = (ROOT / "setup.py").read_text("utf-8")
    for word in words[1:]:
        folder = re.match(r"\.[\w./]*", word)
        if folder and not (ROOT / folder[0]).is_dir():
            raise ValueError(f"there is no {folder[0]}")
        extras = re.search(r"^(?:\.|d2_isonet)\[([\w,-]+)\]", word)
        for extra in extras[1].split(",") if extras else ():
            if f'"{extra}": [' not in setup:
                raise ValueError(f"setup.py has no extra {extra}")


def _make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for word in words:
        name, is_variable, _ = word.partition("=")
        pattern = rf"^{name} \?=" if is_variable else rf"^{name}:"
        if not re.search(pattern, makefile, re.MULTILINE):
            raise ValueError(f"the Makefile has no {name}")


def _torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    parsed = get_args_parser().parse_args(words)
    _checked_script(parsed.training_script, parsed.training_script_args)


def _sbatch(words: list[str]) -> None:
    job = next((i for i, word in enumerate(words) if word.endswith(".sbatch")), None)
    if job is None or not (ROOT / words[job]).is_file():
        raise ValueError("there is no such sbatch file")
    _checked_script(words[job + 1], words[job + 2 :])


def _nothing(words: list[str]) -> None:
    """Left alone."""


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "python": _python,
    ".venv/bin/python": _python,
    "pytest": _pytest,
    "pip": _pip,
    "make": _make,
    "torchrun": _torchrun,
    ".venv/bin/torchrun": _torchrun,
    "sbatch": _sbatch,
    **dict.fromkeys(_LEFT_ALONE, _nothing),
    ".venv/bin/pre-commit": _nothing,
}


@functools.cache
def problem_of(words: tuple[str, ...]) -> str:
    """Why the command would not run; "" where it would."""
    check = PROGRAMS.get(words[0])
    if check is None:
        return (
            f"{words[0]} is no program that tools/documents/programs.py knows: add it there, or "
            "put <!-- not run: REASON --> above the block"
        )
    try:
        check(list(words[1:]))
    except (Exception, SystemExit) as error:  # whatever the owner of the words says of them
        return str(error) or "it cannot be parsed"
    return ""


def why_left_alone(words: tuple[str, ...]) -> str:
    """Why nothing but the program's name is checked; "" where more is."""
    return _LEFT_ALONE.get(Path(words[0]).name, "")
