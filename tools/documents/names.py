"""Files, tests, config keys, flags and Python names that a document mentions."""

import functools
import importlib
import re
from collections.abc import Callable, Iterator

from .markdown import Page, Problem, Span
from .repository import ROOT, SUFFIXES, files, has

_KEY = re.compile(r"(?<![\w.])[A-Z][A-Z0-9_]*(?:\.[A-Z][A-Z0-9_]*)+")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
_PYTHON = re.compile(r"(?<![\w./])d2_isonet(?:\.[A-Za-z_]\w*)+")
_TEST = re.compile(r"([\w/]+\.py)::(\w+)$")
_PATH = re.compile(r"[\w./{},*<>-]+$")
_PLACEHOLDER = re.compile(r"(?:^|/)[A-Z_]+(?:/|$)")  # FILE, OUTPUT_DIR/...
_FOLDERS = ("configs/", "d2_isonet/", "docs/", "results/", "tests/", "third_party/", "tools/")
_WRITTEN_BY_RUNS = {"config.yaml"}
# Misspelt on purpose, where a page shows what is said of it.
_WRONG_KEYS = {"SOLVER.BASE_LRR"}
_FLAGS_OF_OTHERS = {"--nodes"}  # sbatch's


def unknown_names(page: Page) -> Iterator[Problem]:
    """Everything the page names that is not there."""
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
        if key.split(".")[0] in _config() and not _has_key(key):
            yield f"{key} is no key of the config"


@functools.cache
def _config():
    from detectron2.config import get_cfg

    from d2_isonet import add_isonet_config

    cfg = get_cfg()
    add_isonet_config(cfg)
    return cfg


def _has_key(key: str) -> bool:
    node = _config()
    for part in key.split("."):
        if part not in node:
            return False
        node = node[part]
    return True


def _unknown_flags(text: str) -> Iterator[str]:
    for flag in set(_FLAG.findall(text)) - _FLAGS_OF_OTHERS - _own_flags():
        yield f"{flag} is no flag of a script here"


@functools.cache
def _own_flags() -> set[str]:
    sources = [(ROOT / name).read_text("utf-8") for name in files() if name.endswith(".py")]
    flags = {
        flag for source in sources for flag in re.findall(r"[\"'](--[a-z0-9-]+)[\"' =]", source)
    }
    from detectron2.engine import default_argument_parser
    from torch.distributed.run import get_args_parser

    for parser in (default_argument_parser(), get_args_parser()):
        flags |= set(parser._option_string_actions)
    return flags


def _unknown_python(text: str) -> Iterator[str]:
    for name in set(_PYTHON.findall(text)):
        if not _is_python(name):
            yield f"{name} is no name of the package"


def _is_python(name: str) -> bool:
    parts = name.split(".")
    if parts[-1] in ("py", "git"):  # a file
        return True
    value = importlib.import_module(parts[0])
    try:
        for part in parts[1:]:
            value = getattr(value, part)
    except AttributeError:
        return False
    return True


def _missing_paths(text: str) -> Iterator[str]:
    path = text.split("::")[0]
    ours = path.startswith(_FOLDERS) or path.endswith(SUFFIXES)
    if path in _WRITTEN_BY_RUNS:
        return
    if ours and _PATH.match(path) and not _PLACEHOLDER.search(path) and not has(path):
        yield f"there is no {path}"


def _missing_tests(text: str) -> Iterator[str]:
    match = _TEST.match(text)
    for name in (n for n in files() if match and f"/{n}".endswith(f"/{match[1]}")):
        if match and f"def {match[2]}(" in (ROOT / name).read_text("utf-8"):
            return
    if match and has(match[1]):
        yield f"{match[1]} has no {match[2]}"
