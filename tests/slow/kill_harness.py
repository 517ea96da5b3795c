"""Kills a small training at random moments, fills its disk, signals it; nothing may be lost.

python tests/slow/kill_harness.py --kills 100
python tests/slow/kill_harness.py --disk
python tests/slow/kill_harness.py --signals 20

Every run is a fork of this process, so that it starts at once. What a process writes survives its
SIGKILL in the system's cache: these tests say nothing about a loss of power.
"""

import argparse
import contextlib
import functools
import json
import logging
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from detectron2.engine.hooks import EvalHook

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "slow")]

import toy_run  # noqa: E402

from d2_isonet import checkpoint, checkpoint_files, checkpoint_hook, resuming  # noqa: E402
from d2_isonet.preemption import PREEMPTED  # noqa: E402

STEPS = 120
LONGEST = 2.0  # seconds until a kill or signal at a random time
# What is going on, told by the functions it goes on in: (module or class, name, phase)
PHASES = [
    (toy_run.ToyWithDropout, "__init__", "building"),
    (resuming, "find_checkpoint", "finding what to resume"),
    (checkpoint.ISONetCheckpointer, "load", "loading"),
    (toy_run.ToyTrainer, "run_step", "a step"),
    (EvalHook, "_do_eval", "evaluating"),
    (checkpoint_files, "_check_room", "checking the room"),
    (checkpoint_files.torch, "save", "writing"),
    (checkpoint_files.os, "fsync", "flushing"),
    (checkpoint_files, "damage_of", "verifying"),
    (checkpoint_files.os, "replace", "renaming"),
    (checkpoint, "write_text", "tagging"),
    (checkpoint_hook.CheckpointHook, "_remove_old", "removing old ones"),
    (resuming, "damage_of", "checking what to resume"),
]
NAMES = ["elsewhere", *(phase for _, _, phase in PHASES)]


class Phase:
    """A byte shared with the child that says what it is doing."""

    def __init__(self):
        self.byte = mmap.mmap(-1, 1)

    def __str__(self) -> str:
        return NAMES[self.byte[0]]

    def trace(self) -> None:
        for number, (owner, name, _) in enumerate(PHASES, start=1):
            function = getattr(owner, name)
            setattr(owner, name, self._traced(function, number))

    def _traced(self, function: Callable, number: int) -> Callable:
        @functools.wraps(function)
        def run(*args, **kwargs):
            outer, self.byte[0] = self.byte[0], number
            try:
                return function(*args, **kwargs)
            finally:
                self.byte[0] = outer

        return run


def fork(action: Callable[[], None], log: Path) -> int:
    """The id of a child of its own process group that does `action`, its output in a file."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1), os.dup2(output, 2)
        logging.basicConfig(filename=log, force=True)  # under pytest handlers are elsewhere
        action()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def ended(child: int, status: int) -> int:
    """The exit code (negative for a signal), after the loading processes are gone too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def wait(child: int) -> int:
    return ended(child, os.waitpid(child, 0)[1])


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


def check_files(folder: Path, newest_before: int) -> int:
    """All checkpoints are whole and last_checkpoint names one; the iteration a resume has."""
    files = sorted(folder.glob("*.pth"))
    for path in files:
        problem = checkpoint_files.damage_of(path)
        assert problem is None, f"{path} {problem}"
    iterations = sorted(checkpoint_files.iteration_of(p) for p in files)
    if not files:
        assert newest_before == -1, "all checkpoints are gone"
        return -1
    assert iterations[-1] >= newest_before, f"went back to {iterations} from {newest_before}"
    if len(files) > 1 and iterations[-1] > 2 * toy_run.PERIOD:
        assert iterations[-2] >= iterations[-1] - toy_run.PERIOD, f"the one before: {iterations}"
    tagged = resuming.find_checkpoint(folder)
    assert tagged is not None
    return checkpoint_files.iteration_of(tagged)


def check_steps(folder: Path, reference: dict[int, set[str]]) -> int:
    """Every step done was the reference's; their number."""
    done = toy_run.recorded(folder) if toy_run.record_of(folder).is_file() else {}
    for iteration, values in done.items():
        assert values == reference[iteration], f"step {iteration}: {values}"
    return len(done)


def check_end(folder: Path, whole: Path) -> None:
    ours, theirs = toy_run.final_weights(folder), toy_run.final_weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs), "other final weights"
    assert set(toy_run.recorded(folder)) == set(toy_run.recorded(whole))


def uninterrupted(root: Path) -> dict[int, set[str]]:
    code = wait(fork(lambda: toy_run.train(root / "whole", STEPS), root / "whole.log"))
    assert code == 0, (root / "whole.log").read_text()
    return toy_run.recorded(root / "whole")


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


@contextlib.contextmanager
def small_file_system(root: Path, megabytes: int) -> Iterator[Path | None]:
    """A folder on a tmpfs of that size; None where it cannot be mounted."""
    folder = root / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


class FillDisk(toy_run.HookBase):
    """The disk is full from one iteration to another."""

    def __init__(self, file: Path, first: int, last: int):
        self.file, self.first, self.last = file, first, last

    def before_step(self) -> None:
        if self.trainer.iter == self.first:
            with contextlib.suppress(OSError), open(self.file, "wb", buffering=0) as file:
                while file.write(bytes(1 << 14)):
                    pass
        if self.trainer.iter == self.last:
            self.file.unlink()


def train_on_full_disk(folder: Path, last: int, foreseen: bool, *opts: str) -> None:
    """The disk is full from step 45 to `last`; saves break off unless that is foreseen.

    Args:
        folder: a link to the disk.
    """
    if not foreseen:
        checkpoint_files._check_room = lambda path, content: None
    trainer = toy_run.ToyTrainer(toy_run.toy_config(folder, STEPS, 0, *opts))
    trainer.resume_or_load(resume=True)
    trainer.register_hooks([FillDisk(folder / "filler", 45, last)])
    trainer.train()


def full_disk(root: Path) -> dict:
    """A file system of three checkpoints fills while a training that keeps two runs on it."""
    reference, figures = uninterrupted(root), {}
    with small_file_system(root, megabytes=15) as disk:
        if disk is None:
            return {"skipped": "this process may not mount a tmpfs"}
        for name, foreseen in (("foreseen", True), ("in a save", False)):
            folder, log = on_disk(root / name.replace(" ", "_"), disk), root / f"{name}.log"
            code = wait(fork(lambda a=folder, b=foreseen: train_on_full_disk(a, 61, b), log))
            text = log.read_text()
            assert code == 0, text
            assert not list(folder.glob("*.partial")), "a stub is left"
            check_files(folder, STEPS - 1)
            assert check_steps(folder, reference) == STEPS
            check_end(folder, root / "whole")
            figures[name] = {"failed saves": text.count("Training goes on; free some space")}
            assert figures[name]["failed saves"] > 0
            shutil.rmtree(folder.resolve())
        figures["limit"] = limit_of_failures(on_disk(root / "limit", disk), root / "limit.log")
    return figures


def on_disk(link: Path, disk: Path) -> Path:
    """A link to a new folder on `disk`."""
    (disk / link.name).mkdir()
    link.symlink_to(disk / link.name)
    return link


def limit_of_failures(folder: Path, log: Path) -> dict:
    opts = ("SOLVER.CHECKPOINT_MAX_FAILURES", "3")
    code = wait(fork(lambda: train_on_full_disk(folder, STEPS + 1, True, *opts), log))
    text = log.read_text()
    assert code == 1 and "3 failed in a row, 3 end the training" in text, text
    assert check_files(folder, 39) == 39, "the last good checkpoint is not kept"
    return {"ended with code": code, "last good iteration": 39}


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
