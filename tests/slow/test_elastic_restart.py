"""torchrun restarts a group of which one process was killed; the training goes on by itself."""

import importlib.util
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from scripts import (
    ENVIRONMENT,
    REPOSITORY,
    SCRIPT,
    TORCHRUN,
    arguments,
    starts,
    write_image_tree,
)

pytestmark = pytest.mark.slow
STEPS = 300
# The order of the images after a restart is that of an uninterrupted run where this is there.
EXACT = importlib.util.find_spec("d2_isonet.engine.resuming") is not None


def start(root: Path, output_dir: Path, log) -> subprocess.Popen:
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", "--max-restarts", "2", SCRIPT]
    command += arguments(root, output_dir, STEPS)
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT
    )


def process_of_rank(rank: int, torchrun: subprocess.Popen) -> int:
    """The id of torchrun's child with this RANK in its environment."""
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    for child in children:
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"torchrun has no child of rank {rank} among {children}")


def losses(output_dir: Path) -> dict[int, float]:
    """By iteration; what was done again counts as done the second time."""
    lines = (output_dir / "metrics.json").read_text().splitlines()
    return {x["iteration"]: x["total_loss"] for x in map(json.loads, lines) if "total_loss" in x}


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[int, str, Path, Path]:
    """(exit code, log, OUTPUT_DIR, images) of a run whose second process was killed once."""
    folder = tmp_path_factory.mktemp("killed")
    root, out = write_image_tree(folder / "images"), folder / "out"
    with open(folder / "log", "w+") as log:
        torchrun = start(root, out, log)
        try:
            while torchrun.poll() is None and not (out / "last_checkpoint").is_file():
                time.sleep(0.1)
            os.kill(process_of_rank(1, torchrun), signal.SIGKILL)
            code = torchrun.wait(900)
        finally:
            torchrun.terminate()
    return code, (folder / "log").read_text(), out, root


def test_the_group_is_restarted_and_says_that_it_resumes(killed):
    _, log, _, _ = killed
    assert "torchrun has restarted the processes (restart 1): resuming from the last" in log


def test_training_goes_on_from_the_last_checkpoint_and_finishes(killed):
    code, log, out, _ = killed
    assert code == 0, log[-3000:]
    first, second = starts(log)
    assert first == 0 and second >= 20 and second % 20 == 0
    assert (out / "model_final.pth").is_file() and max(losses(out)) == STEPS - 1


@pytest.mark.skipif(not EXACT, reason="the order of the images is not resumed in this version")
def test_its_losses_are_those_of_an_uninterrupted_run(killed, tmp_path):
    with open(tmp_path / "log", "w") as log:
        assert start(killed[3], tmp_path / "out", log).wait(900) == 0
    assert losses(killed[2]) == losses(tmp_path / "out")
