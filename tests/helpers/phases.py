"""What a child process is doing, told by the functions it does it in."""

import functools
import mmap
from collections.abc import Callable

import toy_run
from detectron2.engine.hooks import EvalHook

from d2_isonet.checkpoint import checkpointer as checkpoint
from d2_isonet.checkpoint import files as checkpoint_files
from d2_isonet.checkpoint import files as resuming
from d2_isonet.engine.hooks import checkpointing as checkpoint_hook
from d2_isonet.utils import files

# (module or class, name of the function, phase)
PHASES = [
    (toy_run.ToyWithDropout, "__init__", "building"),
    (resuming, "find_checkpoint", "finding what to resume"),
    (checkpoint.ISONetCheckpointer, "load", "loading"),
    (toy_run.ToyTrainer, "run_step", "a step"),
    (EvalHook, "_do_eval", "evaluating"),
    (files, "_check_room", "checking the room"),
    (checkpoint_files.torch, "save", "writing"),
    (files.os, "fsync", "flushing"),
    (checkpoint_files, "damage_of", "verifying"),
    (files.os, "replace", "renaming"),
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
