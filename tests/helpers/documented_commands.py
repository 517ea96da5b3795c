"""Who runs each command of the documents: the stage of tests/slow, or something else, by name."""

import re
from typing import NamedTuple

from documents.commands import Command, commands_of
from documents.markdown import Page
from documents.names import documents


class Elsewhere(NamedTuple):
    """Commands that the stage leaves to others.

    Args:
        pattern: of the command, from its first word on.
        by: `file::test` below tests/, or files and folders of the repository.
        why: the stage does not.
    """

    pattern: str
    by: tuple[str, ...]
    why: str


ELSEWHERE = (
    Elsewhere(r"(export|\.|cd|source|git) ", ("README.md",), "the shell's, or a clone's first"),
    Elsewhere(r"make (setup|test|lint|types)$", (".ci/run",), "continuous integration does"),
    Elsewhere(r"make (docs|coverage|slow-test)", ("CONTRIBUTING.md",), "before every release"),
    Elsewhere(r"make quickstart", ("tools/quickstart.py",), "set-up, and the script that is run"),
    Elsewhere(r"(pip|python -m venv|python -m pip) ?", ("test_wheel.py", "Makefile"), "network"),
    Elsewhere(r"\S*pre-commit ", ("test_project_files.py",), "network"),
    Elsewhere(r"docker ", ("test_project_files.py",), "needs a Docker engine"),
    Elsewhere(r"curl ", ("test_demo_server.py",), "needs the server"),
    Elsewhere(r"rsync ", ("test_make_shards.py",), "needs another machine"),
    Elsewhere(r"(python -m )?pytest tests/", ("Makefile",), "is a test"),
    Elsewhere(r"python tests/helpers/kill_harness", ("slow/test_nothing_is_lost.py",), "hours"),
    Elsewhere(r".* --serve$", ("test_demo_page.py",), "serves until it is stopped"),
    Elsewhere(r".* --data-root https:", ("test_shard_reading.py",), "needs the server"),
    Elsewhere(r".* --data-root 'pipe:", ("test_shard_reading.py",), "needs the bucket"),
    Elsewhere(r"torchrun --standalone", ("slow/test_elastic_restart.py",), "is restarted there"),
    Elsewhere(r"torchrun --nnodes", ("slow/test_machines_join_and_leave.py",), "several machines"),
    Elsewhere(r".* --num-machines 2", ("slow/test_two_machines.py",), "needs two machines"),
    Elsewhere(r"sbatch ", ("test_slurm.py",), "needs Slurm"),
    Elsewhere(r"python my_train.py", ("slow/test_newcomer.py",), "the reader's own script"),
    Elsewhere(r".*panoptic_risonet50_fpn", ("test_architectures.py",), "needs panopticapi"),
    Elsewhere(r".* WANDB.ENABLED True", ("test_wandb_writer.py",), "needs an account"),
    Elsewhere(
        r"python tools/model_zoo.py",
        ("tools/reproduction/test_documents.py",),
        "writes the page itself",
    ),
    Elsewhere(
        r"python tools/reproduce.py (\w+|table5 --scale full)$", ("results/small",), "hours or GPUs"
    ),
    Elsewhere(r".* MODEL.WEIGHTS page.pth", ("test_bad_inputs.py",), "an example of what is wrong"),
)


def documented() -> dict[str, Command]:
    """Every command that a page gives, once, by its text."""
    return {str(c): c for page in map(Page, documents()) for c in commands_of(page)}


def elsewhere(text: str) -> Elsewhere | None:
    """Who runs it instead of the stage."""
    return next((x for x in ELSEWHERE if re.match(x.pattern, text)), None)


def of_the_stage() -> dict[str, Command]:
    """The commands that tests/slow/test_documented_commands.py runs."""
    return {text: command for text, command in documented().items() if not elsewhere(text)}
