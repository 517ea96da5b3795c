"""The sbatch file, run with stand-ins for the commands of Slurm that record their calls."""

import os
import signal
import subprocess
import time

import pytest
from repository import REPOSITORY

SBATCH = REPOSITORY / "docs" / "train.sbatch"
STAND_INS = {
    "scontrol": '[ "$1" = show ] && echo node7 && exit\necho "scontrol $*" >> "$CALLS"',
    "scancel": 'echo "scancel $*" >> "$CALLS"\ntouch "$CALLS.cancelled"',
    "srun": """
        [ "$1" = .venv/bin/torchrun ] && echo "srun $*" >> "$CALLS"
        for _ in $(seq 600); do
            [ -e "$CALLS.cancelled" ] && exit 1
            [ "$FINISHES" = yes ] && exit 3
            sleep 0.1
        done""",
}


@pytest.fixture
def job(tmp_path):
    """Start the batch script as Slurm does; its calls are recorded in tmp_path/calls."""
    for name, lines in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
        (tmp_path / name).chmod(0o755)

    def start(finishes: str) -> subprocess.Popen:
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"),
            "FINISHES": finishes, "SLURM_JOB_ID": "20001", "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_NODELIST": "node[7-8]",
        }  # fmt: skip
        return subprocess.Popen(["bash", str(SBATCH), "train_net.py", "--resume"], env=environment)

    return start


def test_every_machine_runs_torchrun_under_the_jobs_number(job, tmp_path):
    assert job(finishes="yes").wait(60) == 3
    calls = (tmp_path / "calls").read_text()
    assert "--nnodes 2 --nproc-per-node 8" in calls and "train_net.py --resume" in calls
    assert "--rdzv-endpoint node7:20001 --rdzv-id 20001" in calls
    assert "requeue" not in calls


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_preempted_job_hands_sigterm_on_and_goes_back_into_the_queue(number, job, tmp_path):
    process = job(finishes="no")
    while not (tmp_path / "calls").exists():
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(60) == 1
    assert (tmp_path / "calls").read_text().splitlines()[1:] == [
        "scancel --signal=TERM 20001.0",
        "scontrol requeue 20001",
    ]
