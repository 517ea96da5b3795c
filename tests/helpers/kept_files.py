"""What a run must have left, whenever and however it was ended."""

from pathlib import Path

import torch
import toy_run
from child_processes import fork, wait

from d2_isonet.checkpoint import files as checkpoint_files
from d2_isonet.checkpoint import files as resuming

STEPS = 120


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
