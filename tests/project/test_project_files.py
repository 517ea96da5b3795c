"""CITATION.cff, Dockerfile and .pre-commit-config.yaml: what can be checked without their tools."""

import datetime
import fnmatch
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from documents.programs import problem_of
from repository import REPOSITORY

import d2_isonet

# ------------------------------------------------------------------------------- CITATION.cff

CITATION = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
# Citation File Format 1.2.0: what every file, person and reference must have and may have.
KEYS = {"cff-version", "message", "type", "title", "abstract", "authors", "version", "license",
        "keywords", "preferred-citation", "references", "date-released", "url",
        "repository-code"}  # fmt: skip
REFERENCE_KEYS = {"type", "title", "authors", "collection-title", "conference", "year", "pages",
                  "doi", "url"}  # fmt: skip


def is_author(author: dict) -> bool:
    return set(author) in ({"name"}, {"family-names", "given-names"})


def test_the_citation_has_what_its_format_asks_for():
    assert {"cff-version", "message", "title", "authors"} <= set(CITATION) <= KEYS
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software"
    assert CITATION["license"] == "Apache-2.0" and all(map(is_author, CITATION["authors"]))


@pytest.mark.parametrize("reference", [CITATION["preferred-citation"], *CITATION["references"]])
def test_every_reference_has_what_its_format_asks_for(reference):
    assert {"type", "title", "authors"} <= set(reference) <= REFERENCE_KEYS
    assert reference["type"] == "conference-paper" and all(map(is_author, reference["authors"]))
    assert 2000 < reference["year"] <= datetime.date.today().year


def test_the_citation_names_this_version_and_the_paper_that_the_readme_names():
    assert CITATION["version"] == d2_isonet.__version__
    paper = CITATION["preferred-citation"]
    readme = (REPOSITORY / "README.md").read_text()
    assert f"title     = {{{paper['title']}}}" in readme
    names = [f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]]
    assert " and ".join(names) in readme


# --------------------------------------------------------------------------------- Dockerfile

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
INSTRUCTIONS = re.findall(r"^([A-Z]+) (.*)$", DOCKERFILE, re.MULTILINE)
IGNORED = (REPOSITORY / ".dockerignore").read_text().split()


def arguments(instruction: str) -> list[str]:
    return [text for name, text in INSTRUCTIONS if name == instruction]


def test_the_image_starts_from_a_slim_python_that_the_package_takes():
    (base,) = arguments("FROM")
    assert re.fullmatch(r"python:3\.1[0-3]-slim", base)


def test_the_image_has_no_compiler():
    assert not re.search(r"apt|gcc|g\+\+|build-essential|cmake|nvcc", DOCKERFILE)


def test_the_image_copies_files_that_are_there_and_not_ignored():
    words = [w for text in arguments("COPY") for w in text.split()[:-1] if not w.startswith("--")]
    assert words == ["constraints.txt", "third_party", "."]
    for word in words:
        assert (REPOSITORY / word).exists()
        assert not any(fnmatch.fnmatch(word, pattern) for pattern in IGNORED if word != ".")


def test_the_image_installs_from_this_repository():
    installs = [text for text in arguments("RUN") if "pip" in text]
    assert len(installs) == 3 and all("--constraint constraints.txt" in x for x in installs)
    assert [problem_of(tuple(shlex.split(text))) for text in installs] == ["", "", ""]


def test_the_image_runs_the_training_script_as_nobody_special():
    names = [name for name, _ in INSTRUCTIONS]
    assert arguments("USER") == ["user"] and "RUN" not in names[names.index("USER") :]
    command = json.loads(arguments("ENTRYPOINT")[0]) + json.loads(arguments("CMD")[0])
    assert command == ["python", "train_net.py", "--help"] and problem_of(tuple(command)) == ""


def test_what_is_large_or_private_stays_out_of_the_image():
    assert {".git", ".venv", "output"} <= set(IGNORED)


# --------------------------------------------------------------------- .pre-commit-config.yaml

HOOKS = [
    hook
    for repo in yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repo["hooks"]
]


def test_the_hooks_are_valid_and_download_nothing():
    clientlib = pytest.importorskip("pre_commit.clientlib")
    config = clientlib.load_config(str(REPOSITORY / ".pre-commit-config.yaml"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    assert {hook["id"] for hook in HOOKS} == {"ruff-format", "ruff-check", "mypy"}


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_the_program_of_a_hook_is_in_the_environment(hook):
    program = shlex.split(hook["entry"])[0]
    assert program.startswith(".venv/bin/")
    assert shutil.which(Path(program).name, path=str(Path(sys.executable).parent))
