"""Two machines, simulated as network namespaces joined by a virtual cable, and the cable cut."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import ENVIRONMENT, REPOSITORY, SCRIPT, arguments, write_image_tree

pytestmark = pytest.mark.slow
NAMES = [f"isonet{os.getpid()}{x}" for x in "ab"]
CABLE = [f"iso{os.getpid() % 10**6}{x}" for x in "ab"]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """The names of two namespaces, 10.77.0.1 and 10.77.0.2."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` (Debian: iproute2)")
    try:
        for name in NAMES:
            ip("netns", "add", name)
        ip("link", "add", CABLE[0], "type", "veth", "peer", "name", CABLE[1])
        for i, (name, end) in enumerate(zip(NAMES, CABLE, strict=True), 1):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{i}/24", "dev", end)
            for device in (end, "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield NAMES
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
    finally:
        for name in NAMES:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


def start(machine: int, root: Path, out: Path, steps: int, timeout: int) -> subprocess.Popen:
    flags = ["--num-machines", "2", "--machine-rank", str(machine), "--dist-timeout", str(timeout),
             "--dist-url", "tcp://10.77.0.1:29501"]  # fmt: skip
    command = ["ip", "netns", "exec", NAMES[machine], sys.executable, SCRIPT]
    with open(out.parent / f"log{machine}", "w") as log:
        return subprocess.Popen(
            [*command, *arguments(root, out, steps, *flags)],
            cwd=REPOSITORY, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def ended(processes: list[subprocess.Popen]) -> list[int]:
    try:
        return [process.wait(600) for process in processes]
    finally:
        for process in processes:
            process.kill()


def test_two_machines_train_and_evaluate_one_model(machines, tmp_path):
    root, out = write_image_tree(tmp_path / "images"), tmp_path / "out"
    codes = ended([start(i, root, out, 20, timeout=300) for i in (0, 1)])
    logs = [(tmp_path / f"log{i}").read_text() for i in (0, 1)]
    assert codes == [0, 0], logs
    assert "1 of 2 processes start here and meet at tcp://10.77.0.1:29501" in logs[1]
    assert "Task: classification" in logs[0]  # over the images of both
    assert (out / "model_final.pth").is_file()


def test_a_cut_cable_ends_both_with_a_message(machines, tmp_path):
    root, out = write_image_tree(tmp_path / "images"), tmp_path / "out"
    processes = [start(i, root, out, 10**6, timeout=60) for i in (0, 1)]
    while not (out / "last_checkpoint").is_file() and processes[0].poll() is None:
        time.sleep(0.2)
    ip("-n", machines[1], "link", "set", CABLE[1], "down")
    assert ended(processes) == [1, 1]
    for machine in (0, 1):
        error = (tmp_path / f"log{machine}").read_text().splitlines()[-1]
        assert error.startswith(f"error: process {machine} of 2 (machine {machine}) lost the other")
        assert "60 s for each other (--dist-timeout)" in error
