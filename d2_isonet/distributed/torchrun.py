"""Under torchrun: whether it has started this training before, so that it must go on, not anew."""

import argparse
import os
from pathlib import Path

from d2_isonet.utils.files import tolerate, write_text

_RUN_ID_FILE = "torchrun_id"  # in OUTPUT_DIR


def under_torchrun() -> bool:
    """Whether this process is one of those that torchrun has started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def resume_if_restarted(args: argparse.Namespace, output_dir: str) -> str:
    """Set args.resume where torchrun starts a training again; returns why, "" if it does not.

    TORCHELASTIC_RESTART_COUNT counts failures alone. When machines join or leave, or a scheduler
    starts the job again, only the run's id (--rdzv-id) tells, which a training leaves in
    OUTPUT_DIR, see `remember_run`.
    """
    if args.resume or args.eval_only or not under_torchrun():
        return ""
    count, run_id = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)), _run_id()
    file = Path(output_dir, _RUN_ID_FILE)
    if count > 0:
        reason = f"torchrun has restarted the processes (restart {count})"
    elif run_id and file.is_file() and file.read_text().strip() == run_id:
        reason = f"{output_dir} is of this torchrun's --rdzv-id {run_id!r}"
    else:
        return ""
    args.resume = True
    return f"{reason}: going on from the last checkpoint, as with --resume"


def remember_run(output_dir: str) -> None:
    """Leave torchrun's id of this run in OUTPUT_DIR; the main process's to do, once it trains."""
    if under_torchrun() and _run_id():
        file = Path(output_dir, _RUN_ID_FILE)
        with tolerate(file, "If torchrun starts the training again, add --resume"):
            write_text(file, f"{_run_id()}\n")


def _run_id() -> str:
    """ "" where none was given: torchrun's "none" is the same for every run."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return "" if run_id == "none" else run_id
