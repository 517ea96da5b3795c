"""A checkpoint of detectron2 v0.6 goes on with HEAD and the other way round, to the last bit.

D2_ISONET_OTHER_DETECTRON2 is a checkout of the version that is not the one installed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import toy_run
from repository import HELPERS, REPOSITORY

pytestmark = pytest.mark.slow

STEPS = 40


@pytest.fixture(scope="module")
def paths() -> dict[str, list[str]]:
    """By name of the version, what PYTHONPATH holds for it."""
    other = os.environ.get("D2_ISONET_OTHER_DETECTRON2", "")
    if not (Path(other) / "detectron2" / "__init__.py").is_file():
        pytest.skip("D2_ISONET_OTHER_DETECTRON2 names no checkout of another detectron2")
    own = [str(REPOSITORY), str(HELPERS)]
    return {"installed": own, "other": [*own, other]}


def train(path: list[str], folder: Path, steps: int) -> str:
    """A run with --resume in a process of its own; the detectron2 version that it had."""
    code = (
        "import sys, detectron2, toy_run; print(detectron2.__version__, detectron2.__file__); "
        f"toy_run.train({str(folder)!r}, {steps})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@pytest.mark.parametrize(("before", "after"), [("installed", "other"), ("other", "installed")])
def test_a_checkpoint_of_one_version_goes_on_with_the_other(before, after, paths, tmp_path):
    train(paths[before], tmp_path / "whole", STEPS)
    one = train(paths[before], tmp_path / "parts", STEPS // 2)
    two = train(paths[after], tmp_path / "parts", STEPS)
    assert one != two, "both runs had the same detectron2"
    assert toy_run.recorded(tmp_path / "parts") == toy_run.recorded(tmp_path / "whole")
    ours, theirs = (toy_run.final_weights(tmp_path / name) for name in ("parts", "whole"))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
