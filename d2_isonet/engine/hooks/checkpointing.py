"""Saves a training periodically, at its end, and when a scheduler stops it."""

import logging
import re
import sys
import time
from pathlib import Path

from detectron2.engine.hooks import PeriodicCheckpointer
from detectron2.utils import comm

from d2_isonet.checkpoint.files import set_aside_earlier_run
from d2_isonet.distributed.preemption import PREEMPTED, StopRequest
from d2_isonet.utils.compat import inner_trainer
from d2_isonet.utils.files import SaveError
from d2_isonet.utils.messages import UserError

logger = logging.getLogger(__name__)


class CheckpointHook(PeriodicCheckpointer):
    """detectron2's PeriodicCheckpointer that survives a full disk and obeys a stop signal.

    Register it on every process, before the hooks that evaluate. A failed save is logged and
    repeated after a tenth of the period; the final one, model_final, after `wait` seconds.

    Args:
        period: iterations between checkpoints.
        max_to_keep: number of newest periodic checkpoints to keep, including those from before a
            resume; 0 or None keeps all.
        max_failures: number of failed saves in a row that ends the training.

    Raises:
        UserError: `period` is below 1, or `max_to_keep` is negative.
    """

    def __init__(
        self, checkpointer, period: int, max_to_keep: int | None = 0, max_failures: int = 20
    ):
        if period < 1 or (max_to_keep or 0) < 0:
            raise UserError(
                f"SOLVER.CHECKPOINT_PERIOD is {period} and SOLVER.CHECKPOINT_MAX_TO_KEEP "
                f"{max_to_keep}",
                "a checkpoint is due every 1 or more iterations, 0 keeps all",
            )
        super().__init__(checkpointer, period)
        self.max_to_keep = max_to_keep
        self.max_failures = max_failures
        self.wait = 60.0
        self.failures = 0
        self.stop = StopRequest()

    def before_train(self) -> None:
        super().before_train()
        comm.synchronize()  # all processes have loaded their weights
        if comm.is_main_process() and self.checkpointer.save_dir:
            folder = Path(self.checkpointer.save_dir)
            for remainder in folder.glob("*.partial"):  # a run was killed while it saved
                remainder.unlink()
            if self.trainer.start_iter == 0:
                set_aside_earlier_run(folder)
        self.stop.listen(getattr(inner_trainer(self.trainer), "exchange", None))
        final = Path(self.checkpointer.save_dir, "model_final.pth")
        if self.trainer.start_iter == self.max_iter and not final.exists():
            self.trainer.iter = self.max_iter - 1
            self._save_final()  # the run was killed just before this save

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        stops = self.stop.reached_any_process() and done < self.max_iter
        saved = True
        if self._is_due(done) or stops:
            saved = self._save(f"model_{done - 1:07d}")
        if done >= self.max_iter:
            self._save_final()
        if stops:
            self._leave(all(comm.all_gather(saved)))

    def after_train(self) -> None:
        self.stop.stop_listening()

    def _save_final(self) -> None:
        while not self._save("model_final"):
            time.sleep(self.wait)

    def _is_due(self, done: int) -> bool:
        again = max(1, self.period // 10)
        return done % self.period == 0 or (self.failures > 0 and done % again == 0)

    def _save(self, name: str) -> bool:
        """Save a checkpoint; if the disk fails, warn and return False."""
        try:
            self.checkpointer.save(name, iteration=self.trainer.iter)
        except SaveError as error:
            self.failures += 1
            newest = self.checkpointer.get_checkpoint_file() or "none"
            text = (
                f"{error}. {self.failures} failed in a row, {self.max_failures} end the training "
                f"(SOLVER.CHECKPOINT_MAX_FAILURES). The newest checkpoint: {newest}"
            )
            if self.failures >= self.max_failures:
                raise SaveError(text) from error
            logger.warning(f"{text}. Training continues; free some space")
            return False
        self.failures = 0
        self._remove_old()
        return True

    def _remove_old(self) -> None:
        if not self.max_to_keep or not comm.is_main_process():
            return
        folder = Path(self.checkpointer.save_dir)
        periodic = [p for p in folder.iterdir() if re.fullmatch(r"model_\d{7,}\.pth", p.name)]
        past = sorted(p for p in periodic if int(p.stem[6:]) <= self.trainer.iter)
        tagged = Path(self.checkpointer.get_checkpoint_file())
        for path in past[: -self.max_to_keep]:
            if path.name != tagged.name:
                path.unlink()

    def _leave(self, saved: bool) -> None:
        if not saved:
            logger.error(f"Stopped by {self.stop}, but the last step could not be saved")
            sys.exit(1)
        logger.warning(
            f"Stopped by {self.stop} after iteration {self.trainer.iter}, which is saved: "
            f"--resume continues from there. Exit code {PREEMPTED}"
        )
        sys.exit(PREEMPTED)
