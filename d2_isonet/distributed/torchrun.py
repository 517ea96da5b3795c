"""Resumes a training that torchrun starts again."""

import argparse
import os
from pathlib import Path

from d2_isonet.utils.files import tolerate, write_text

_RUN_ID_FILE = "torchrun_id"  # in OUTPUT_DIR


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def resume_if_restarted(args: argparse.Namespace, output_dir: str) -> str:
    """Set args.resume if torchrun starts a training again; return the reason, "" if it does not.

    TORCHELASTIC_RESTART_COUNT counts failures alone. If machines join or leave, or a scheduler
    starts the job again, only the run's id (--rdzv-id) shows it, which `remember_run` leaves in
    OUTPUT_DIR.
    """
    if args.resume or args.eval_only or not under_torchrun():
        return ""
    count, run_id = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)), _run_id()
    file = Path(output_dir, _RUN_ID_FILE)
    if count > 0:
        reason = f"torchrun has restarted the processes (restart {count})"
    elif run_id and file.is_file() and file.read_text().strip() == run_id:
        reason = f"{output_dir} belongs to this torchrun's --rdzv-id {run_id!r}"
    else:
        return ""
    args.resume = True
    return f"{reason}: resuming from the last checkpoint, as with --resume"


def remember_run(output_dir: str) -> None:
    """Write torchrun's id of this run to OUTPUT_DIR, in the main process before it trains."""
    if under_torchrun() and _run_id():
        file = Path(output_dir, _RUN_ID_FILE)
        with tolerate(file, "If torchrun starts the training again, add --resume"):
            write_text(file, f"{_run_id()}\n")


def _run_id() -> str:
    """torchrun's id of this run; "" if none was given, since "none" is the same for every run."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return "" if run_id == "none" else run_id
