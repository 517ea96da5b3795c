"""Two machines on the loopback: when a process of one is killed, both name the same one."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from scripts import ENVIRONMENT, REPOSITORY

pytestmark = pytest.mark.slow


def main(_) -> None:
    """Every process waits for the others, of which the last has been killed."""
    from detectron2.utils import comm

    if comm.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    comm.synchronize()


def test_both_machines_name_the_process_that_was_killed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    flags = [
        "--config-file",
        "none",
        "--num-machines",
        "2",
        "--dist-url",
        f"tcp://127.0.0.1:{port}",
        "--machine-rank",
    ]
    machines = [
        subprocess.Popen(
            [sys.executable, __file__, *flags, str(rank)], cwd=REPOSITORY, env=ENVIRONMENT,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    errors = [machine.communicate(timeout=900)[1].splitlines()[-1] for machine in machines]
    killed = "process 1 of 2 (machine 1) was ended by SIGKILL"
    assert errors[1].startswith(f"error: {killed}")
    assert errors[0].startswith(f"error: process 0 of 2 (machine 0) lost the others: {killed}")
    assert [machine.returncode for machine in machines] == [1, 128 + signal.SIGKILL]


if __name__ == "__main__":
    from d2_isonet.commands.arguments import training_parser
    from d2_isonet.distributed.launch import run

    run(main, training_parser("train", __doc__).parse_args())
