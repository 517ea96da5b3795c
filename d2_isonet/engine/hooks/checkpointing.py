"""Saves a training periodically, at its end, and when a scheduler stops it."""

import logging
import re
import sys
import time
from pathlib import Path
from typing import NoReturn

from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.utils import comm

from d2_isonet.checkpoint.files import set_aside_earlier_run
from d2_isonet.distributed.preemption import StopRequest, exit_code_of
from d2_isonet.engine.folder_lock import lock_folder
from d2_isonet.engine.writers import prepare_metrics
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
        self.stop = StopRequest(self._newest)
        self._last_step = -1
        self._is_saved = True  # the last step

    def before_train(self) -> None:
        super().before_train()
        lock_folder(self.checkpointer.save_dir)  # when all processes have loaded their weights
        if comm.is_main_process() and self.checkpointer.save_dir:
            folder = Path(self.checkpointer.save_dir)
            for remainder in folder.glob("*.partial"):  # a run was killed while it saved
                remainder.unlink()
            if self.trainer.start_iter == 0:
                set_aside_earlier_run(folder)
            prepare_metrics(folder, self.trainer.start_iter)
        self.stop.listen(getattr(inner_trainer(self.trainer), "exchange", None))
        self._last_step = self.trainer.start_iter - 1
        if self.trainer.start_iter >= self.max_iter:
            self.trainer.iter = self._last_step  # detectron2 increments it before after_train
            if not Path(self.checkpointer.save_dir, "model_final.pth").exists():
                self._save_final()  # the run was killed just before this save
        self.stop.allow_interruption()

    def before_step(self) -> None:
        self.stop.interruptible = False

    def after_step(self) -> None:
        self._last_step, self._is_saved = self.trainer.iter, False
        done = self.trainer.iter + 1
        is_last = done >= self.max_iter
        stops = self.stop.reached_any_process()
        if self._is_due(done) or (stops and not is_last):
            self._save(self._name())
        if is_last:
            self._save_final()
        if not stops and (is_last or done % self.period == 0):
            stops = self.stop.reached_any_process()  # during the save
        if stops and not is_last:
            self._leave(all(comm.all_gather(self._is_saved)))
        # The hooks of the last step are short, and the evaluation comes later. Several processes
        # stop together after the next step, if it is soon.
        if not is_last and (comm.get_world_size() == 1 or self._is_evaluated(done)):
            self.stop.allow_interruption()

    def _is_evaluated(self, done: int) -> bool:
        hooks = [hook for hook in self.trainer._hooks if isinstance(hook, EvalHook)]
        return any(hook._period > 0 and done % hook._period == 0 for hook in hooks)

    def after_train(self) -> None:
        if self.stop.interrupted:
            self.trainer.iter = self._last_step  # the next step may have been announced already
            self._report(self._is_saved or self._save(self._name()))
        elif self.stop.signal and self.trainer.iter >= self.trainer.max_iter:
            self._leave(True)  # the resumed run evaluates
        self.stop.stop_listening()

    def _name(self) -> str:
        return f"model_{self._last_step:07d}"

    def _newest(self) -> str:
        there = bool(self.checkpointer.save_dir) and self.checkpointer.has_checkpoint()
        return self.checkpointer.get_checkpoint_file() if there else ""

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
            newest = self._newest() or "none"
            text = (
                f"{error}. {self.failures} failed in a row, {self.max_failures} end the training "
                f"(SOLVER.CHECKPOINT_MAX_FAILURES). The newest checkpoint: {newest}"
            )
            if self.failures >= self.max_failures:
                raise SaveError(text) from error
            logger.warning(f"{text}. Training continues; free some space")
            return False
        self.failures, self._is_saved = 0, True
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

    def _leave(self, saved: bool) -> NoReturn:
        self._report(saved)
        sys.exit(exit_code_of(self.stop.signal))

    def _report(self, saved: bool) -> None:
        """Log what a stopped training has saved; exit with code 1 if that is not its last step."""
        if not (saved and self.checkpointer.save_dir):
            newest = self._newest() or "none"
            logger.error(
                f"Stopped by {self.stop}, but the last step could not be saved. The newest "
                f"checkpoint: {newest}"
            )
            sys.exit(1)
        if self._last_step < 0:
            text = "before the first step: there was nothing to save"
        else:
            text = (
                f"after iteration {self._last_step}, which is saved: --resume continues from there"
            )
        code = exit_code_of(self.stop.signal)
        logger.warning(f"Stopped by {self.stop} {text}. Exit code {code}")
