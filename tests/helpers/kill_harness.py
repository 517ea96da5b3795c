"""Kills a small training at random moments, fills its disk, signals it; nothing may be lost.

python tests/helpers/kill_harness.py --kills 100
python tests/helpers/kill_harness.py --disk
python tests/helpers/kill_harness.py --signals 20

Every run is a fork of this process, so that it starts at once. What a process writes survives its
SIGKILL in the system's cache: these tests say nothing about a loss of power.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
import toy_run
from child_processes import ended, fork, wait
from full_disks import full_disk
from kept_files import STEPS, check_end, check_files, check_steps, uninterrupted
from phases import NAMES, Phase

from d2_isonet.distributed.preemption import PREEMPTED

LONGEST = 2.0  # seconds until a kill or signal at a random time


def kill_later(child: int, delay: float, phase: Phase, target: str | None) -> int:
    """SIGKILL after a delay in seconds or, with a target, in the middle of that; the exit code."""
    deadline = time.monotonic() + (20 if target else delay)
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return ended(child, status)
        if target and str(phase) == target:
            time.sleep(random.random() * 0.002)
            break
        time.sleep(0 if target else 0.001)
    os.kill(child, signal.SIGKILL)
    return wait(child)


def kills(root: Path, number: int) -> dict:
    """SIGKILL `number` times; half at a random time, half inside a random phase."""
    reference, phase = uninterrupted(root), Phase()
    where, resumes, runs, steps, newest = Counter(), 0, 0, 0, -1
    while sum(where.values()) < number:
        folder, log = root / f"run{runs}", root / f"run{runs}.log"

        def action(folder=folder):
            phase.trace()
            toy_run.train(folder, STEPS, random.choice([0, 2]))

        random.seed(f"{number} {sum(where.values())} {resumes}")
        target = random.choice([None, random.choice(NAMES[1:])])
        phase.byte[0] = 0
        code = kill_later(fork(action, log), LONGEST * random.random(), phase, target)
        assert code in (0, -signal.SIGKILL), log.read_text()
        newest = check_files(folder, newest)
        done = check_steps(folder, reference)
        if code == 0:
            check_end(folder, root / "whole")
            runs, steps, newest = runs + 1, steps + done, -1
        else:
            where[str(phase)] += 1
            resumes += newest >= 0
            if sum(where.values()) % 10 == 0:
                print(f"{sum(where.values())} kills, {runs} whole runs", file=sys.stderr)
    figures = {"kills": number, "of which a resume follows": resumes, "whole runs": runs}
    return {**figures, "steps of the whole runs": steps, "killed inside": dict(where)}


def signals(root: Path, number: int) -> dict:
    """SIGTERM or SIGUSR1 at random times: what is done is saved, and goes on exactly."""
    reference = uninterrupted(root)
    codes, runs, newest = Counter(), 0, -1
    while sum(codes.values()) < number:
        folder, log = root / f"run{runs}", root / f"run{runs}.log"
        random.seed(f"signals {number} {sum(codes.values())}")
        workers = random.choice([0, 2])
        child = fork(lambda f=folder, w=workers: toy_run.train(f, STEPS, w), log)
        time.sleep(LONGEST * random.random())
        os.kill(child, random.choice([signal.SIGTERM, signal.SIGUSR1]))
        code = wait(child)
        codes[code] += 1
        assert code in (0, PREEMPTED, -signal.SIGTERM, -signal.SIGUSR1), log.read_text()
        newest = check_files(folder, newest)
        done = check_steps(folder, reference)
        if code == PREEMPTED:
            assert newest == done - 1, f"{done} steps are done, {newest + 1} saved"
        if code == 0:
            check_end(folder, root / "whole")
            runs, newest = runs + 1, -1
    return {"signals": number, "whole runs": runs, "exit codes": dict(codes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="SIGKILL N times")
    parser.add_argument("--disk", action="store_true", help="fill the disk")
    parser.add_argument("--signals", type=int, default=0, metavar="N", help="SIGTERM N times")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, run in (
        ("kills", lambda root: kills(root, args.kills)),
        ("disk", full_disk),
        ("signals", lambda root: signals(root, args.signals)),
    ):
        if getattr(args, name):
            with tempfile.TemporaryDirectory(prefix="d2_isonet_") as root:
                start = time.monotonic()
                figures = run(Path(root))
                seconds = round(time.monotonic() - start)
                print(json.dumps({name: figures, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
