"""torchrun --nnodes 1:2 on the loopback: a machine joins a training, and leaves it again.

torchrun tells the processes of a change by SIGTERM, at which they save: no step is lost.
"""

import json
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest
from repository import HELPERS
from scripts import (
    ENVIRONMENT,
    REPOSITORY,
    TORCHRUN,
    arguments,
    starts,
    write_image_tree,
)

pytestmark = pytest.mark.slow
STEPS, PATIENCE = 90, 1200  # seconds
# Without it a machine that joins waits in vain for the address that the first one keeps to itself
# (torch 2.15, DynamicRendezvousHandler.next_rendezvous), and both end after a minute.
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
HELD = str(HELPERS / "held_pretraining.py")


def start(command: list[str], root: Path, out: Path, log: Path) -> subprocess.Popen:
    with open(log, "w") as file:
        return subprocess.Popen(
            [*command, *arguments(root, out, STEPS)],
            cwd=REPOSITORY, env=ENVIRONMENT | OWN_STORE, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip


def machine(port: int) -> list[str]:
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    rendezvous += ["--rdzv-id", "joining", "--rdzv-conf", "last_call_timeout=2"]
    return [*TORCHRUN, "--nnodes", "1:2", "--max-restarts", "3", *rendezvous, HELD]


def wait_for(checkpoint: str, out: Path, training: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    tag = out / "last_checkpoint"
    while not tag.is_file() or tag.read_text() < checkpoint:
        assert training.poll() is None and time.monotonic() < end, f"no {checkpoint}"
        time.sleep(0.2)


def losses(out: Path) -> dict[int, float]:
    """By iteration; what was done again counts as done the second time."""
    lines = (out / "metrics.json").read_text().splitlines()
    return {x["iteration"]: x["total_loss"] for x in map(json.loads, lines) if "total_loss" in x}


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> tuple[int, str, Path]:
    """(exit code, log of the first machine, OUTPUT_DIR)."""
    folder = tmp_path_factory.mktemp("changed")
    root, out = write_image_tree(folder / "images"), folder / "out"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    machines = [start(machine(port), root, out, folder / "log0")]
    try:
        wait_for("model_0000019.pth", out, machines[0])
        machines.append(start(machine(port), root, out, folder / "log1"))
        wait_for("model_0000059.pth", out, machines[0])
        machines[1].terminate()
        code = machines[0].wait(PATIENCE)
    finally:
        for process in machines:
            process.terminate()
    return code, (folder / "log0").read_text(), out


def test_each_change_goes_on_from_the_last_step_to_the_end(changed):
    code, log, out = changed
    assert code == 0, log[-3000:]
    first, joined, left = starts(log)
    assert first == 0 and joined in (30, 31)  # held before step 30, which may be done or left
    assert 60 < left <= 71  # the other is ended after step 59, and held before step 70
    stops = re.findall(r"Stopped by SIGTERM after iteration (\d+), which is saved", log)
    assert [int(x) + 1 for x in stops] == [joined, left]
    assert (out / "model_final.pth").is_file() and max(losses(out)) == STEPS - 1
