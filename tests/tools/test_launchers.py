"""The launchers of tools/ whose code is in a package beside them: --help, and Ctrl-C."""

import os
import subprocess
import sys

import pytest
from repository import TOOLS

LAUNCHERS = ("benchmark", "check_documents", "prepare_cutouts", "prepare_fashion_mnist",
             "scaling_plan")  # fmt: skip


@pytest.mark.parametrize("name", LAUNCHERS)
def test_help_does_not_import_torch(name):
    command = [sys.executable, "-X", "importtime", str(TOOLS / f"{name}.py"), "--help"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lines = [line for line in process.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert process.returncode == 0 and process.stdout.startswith(f"usage: {name}.py")
    assert "argparse" in imported and imported.isdisjoint(("torch", "detectron2"))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_an_interrupt_during_the_imports_is_one_line(name, tmp_path):
    (tmp_path / "argparse.py").write_text("raise KeyboardInterrupt")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(TOOLS / f"{name}.py")]
    process = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 130
    assert process.stderr.startswith(f"{name}: interrupted") and process.stderr.count("\n") == 1
