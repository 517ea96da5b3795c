"""What messages tell the user to type: names of programs, and packages to install."""

import ast
import re
import sys

import pytest
from repository import REPOSITORY

from d2_isonet.utils import command_line
from d2_isonet.utils.command_line import is_installed, require_packages, typed_command
from d2_isonet.utils.messages import UserError


@pytest.mark.parametrize(
    ("argv", "program", "command"),
    [
        (["train_net.py", "-x"], ["python", "train_net.py"], "python train_net.py -x"),
        (["/bin/d2-isonet", "demo", "-x"], ["d2-isonet", "demo"], "d2-isonet demo -x"),
        (["/a/d2_isonet/__main__.py", "demo"], ["python", "-m", "d2_isonet", "demo"],
         "python -m d2_isonet demo"),
        (["/a/pytest/__main__.py"], ["python", "/a/pytest/__main__.py"],
         "python /a/pytest/__main__.py"),
    ],
)  # fmt: skip
def test_the_program_is_named_as_it_was_started(argv, program, command, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    assert command_line.typed_program() == program
    assert " ".join(typed_command()) == command


def test_missing_packages_are_named_with_what_pip_calls_them(monkeypatch):
    require_packages("json", needed_by="the page")
    monkeypatch.setitem(sys.modules, "cv2", None)
    message = "^the page needs cv2 and no_such, which are not installed; pip install opencv-python"
    with pytest.raises(UserError, match=message):
        require_packages("cv2", "json", "no_such", needed_by="the page")


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "wandb_of_runs").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_installed("wandb_of_runs")


def test_an_extra_brings_every_package_that_is_asked_for():
    asked = set()
    for path in (REPOSITORY / "d2_isonet").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "require_packages":
                asked |= {x.value for x in node.args if isinstance(x, ast.Constant)}
    setup = (REPOSITORY / "setup.py").read_text("utf-8")
    extras = set(re.findall(r'"([\w-]+)>=', setup[setup.index("EXTRAS = {") :]))
    assert {"jinja2", "flask", "wandb"} <= asked
    assert {command_line._PIP_NAMES.get(name, name) for name in asked} <= extras
