"""Runs on a small file system that fills while they train."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import toy_run
from child_processes import fork, wait
from kept_files import STEPS, check_end, check_files, check_steps, uninterrupted

from d2_isonet.utils import files as checkpoint_files


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
