"""Checks that the files, tests, config keys, flags and Python names of a page exist."""

import fnmatch
import functools
import itertools
import operator
import pkgutil
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from .markdown import ROOT, Page, Problem, Span

# A name such as `names.py`, without a folder, may be any file of the repository.
SUFFIXES = (".py", ".yaml", ".yml", ".md", ".sbatch", ".toml")
_KEY = re.compile(r"(?<![\w.])[A-Z][A-Z0-9_]*(?:\.[A-Z][A-Z0-9_]*)+")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
_PYTHON = re.compile(r"(?<![\w./])d2_isonet(?:\.[A-Za-z_]\w*)+")
_TEST = re.compile(r"([\w/]+\.py)::(\w+)$")
_PATH = re.compile(r"[\w./{},*<>-]+$")
_PLACEHOLDER = re.compile(r"(?:^|/)[A-Z_]+(?:/|$)")  # FILE, OUTPUT_DIR/...
_FOLDERS = ("configs/", "d2_isonet/", "docs/", "results/", "tests/", "third_party/", "tools/")
_WRITTEN_BY_RUNS = {"config.yaml"}
# Misspelt on purpose: the page shows the error message.
_WRONG_KEYS = {"SOLVER.BASE_LRR"}
_FLAGS_OF_OTHERS = {"--nodes"}  # sbatch's


def unknown_names(page: Page) -> Iterator[Problem]:
    """The names on the page that do not exist."""
    lines = [Span(text, i) for i, text in enumerate(page.path.read_text("utf-8").split("\n"), 1)]
    words = [span for span in page.spans if not re.search(r"\s", span.text)]
    checks: list[tuple[list[Span], Callable[[str], Iterator[str]]]] = [
        (lines, _unknown_keys),
        (lines, _unknown_python),
        (page.spans, _unknown_flags),
        (words, _missing_paths),
        (words, _missing_tests),
    ]
    for spans, check in checks:
        for text, line in spans:
            yield from (Problem(page.path, line, what) for what in check(text))


def _unknown_keys(text: str) -> Iterator[str]:
    for key in set(_KEY.findall(text)) - _WRONG_KEYS:
        if key.split(".")[0] in default_config():
            try:
                operator.attrgetter(key)(default_config())
            except AttributeError:
                yield f"{key} is no key of the config"


@functools.cache
def default_config():
    """A config with all keys of detectron2 and of this package."""
    from detectron2.config import get_cfg

    from d2_isonet import add_isonet_config

    cfg = get_cfg()
    add_isonet_config(cfg)
    return cfg


def _unknown_flags(text: str) -> Iterator[str]:
    for flag in set(_FLAG.findall(text)) - _FLAGS_OF_OTHERS - _own_flags():
        yield f"{flag} is no flag of a script here"


@functools.cache
def _own_flags() -> set[str]:
    from detectron2.engine import default_argument_parser
    from torch.distributed.run import get_args_parser

    parsers = (default_argument_parser(), get_args_parser())
    flags = {flag for parser in parsers for flag in parser._option_string_actions}
    for name in files():
        if name.endswith(".py"):
            source = (ROOT / name).read_text("utf-8")
            flags.update(re.findall(r"[\"'](--[a-z0-9-]+)[\"' =]", source))
    return flags


def _unknown_python(text: str) -> Iterator[str]:
    for name in set(_PYTHON.findall(text)):
        if not name.endswith((".py", ".git")):  # a file
            try:
                pkgutil.resolve_name(name)  # imports the modules on the way
            except (ImportError, AttributeError):
                yield f"{name} is no name of the package"


def _missing_paths(text: str) -> Iterator[str]:
    path = text.split("::")[0]
    ours = path.startswith(_FOLDERS) or path.endswith(SUFFIXES)
    if path in _WRITTEN_BY_RUNS:
        return
    if ours and _PATH.match(path) and not _PLACEHOLDER.search(path) and not has(path):
        yield f"there is no {path}"


def _missing_tests(text: str) -> Iterator[str]:
    match = _TEST.match(text)
    if match and has(match[1]):
        sources = (ROOT / name for name in files() if f"/{name}".endswith(f"/{match[1]}"))
        if not any(f"def {match[2]}(" in path.read_text("utf-8") for path in sources):
            yield f"{match[1]} has no {match[2]}"


def documents() -> list[Path]:
    """All markdown files of the repository, third_party included."""
    return [ROOT / name for name in files() if name.endswith(".md")]


@functools.cache
def files() -> list[str]:
    """The paths of all files that git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        names = listed.stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
    return sorted(name for name in names if (ROOT / name).is_file() and ".venv" not in name)


def has(pattern: str) -> bool:
    """Whether each alternative of a path, such as `a/{b,c}*.yaml`, matches a file or a folder.

    A path is relative to the root, configs/, tests/ or any folder.
    """
    for path in alternatives(pattern.rstrip("/")):
        places = (path, f"configs/{path}", f"tests/{path}", f"*/{path}")
        if not any(fnmatch.filter(_files_and_folders(), place) for place in places):
            return False
    return True


def alternatives(pattern: str) -> list[str]:
    """Expand `a{b,c}d` to `abd` and `acd`, and `<...>` to `*`."""
    parts = re.split(r"\{([^{}]*)\}", re.sub(r"<[^<>]*>", "*", pattern))
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(words) for words in itertools.product(*choices)]


@functools.cache
def _files_and_folders() -> set[str]:
    return {*files(), *(str(parent) for name in files() for parent in Path(name).parents)}
