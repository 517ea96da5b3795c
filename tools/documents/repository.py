"""The files of this repository that documents may name."""

import fnmatch
import functools
import itertools
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# `names.py` and the like, without a folder: any file of the repository may be meant.
SUFFIXES = (".py", ".yaml", ".yml", ".md", ".sbatch", ".toml")


def documents() -> list[Path]:
    """Every markdown file of the project, third_party's too."""
    return [ROOT / name for name in files() if name.endswith(".md")]


@functools.cache
def files() -> list[str]:
    """Paths of all files that belong to the repository or would be added to it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        names = listed.stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
    return sorted(name for name in names if (ROOT / name).is_file() and ".venv" not in name)


def has(pattern: str) -> bool:
    """Whether every alternative of a path, `a/{b,c}*.yaml` say, names a file or a folder.

    Paths count from the root, from configs/ or tests/, or, for a bare name, from anywhere.
    """
    return all(map(_has_one, alternatives(pattern)))


def alternatives(pattern: str) -> list[str]:
    """`a{b,c}d` as `abd` and `acd`; `<...>` as `*`."""
    parts = re.split(r"\{([^{}]*)\}", re.sub(r"<[^<>]*>", "*", pattern))
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(words) for words in itertools.product(*choices)]


def _has_one(pattern: str) -> bool:
    pattern = pattern.rstrip("/")
    places = [pattern, f"configs/{pattern}", f"tests/{pattern}", f"*/{pattern}"]
    return any(fnmatch.filter(files() + _folders(), place) for place in places)


@functools.cache
def _folders() -> list[str]:
    return sorted({str(parent) for name in files() for parent in Path(name).parents})
