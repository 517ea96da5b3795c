"""A training logged on Weights & Biases, where it is asked for; its failures end no training."""

import logging
import os
import uuid
import weakref
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml
from detectron2.engine import DefaultTrainer
from detectron2.utils.events import EventWriter, get_event_storage

logger = logging.getLogger(__name__)
_RUN_ID_FILE = "wandb_run_id"  # in OUTPUT_DIR
_WINDOW = 20  # iterations, over which losses are smoothed: as in the log and in TensorBoard


class WandbWriter(EventWriter):
    """Every scalar of the event storage to one run of Weights & Biases, over its iteration.

    The run begins with the first line of the log; a resumed training goes on with the same run,
    whose id is kept in OUTPUT_DIR. WANDB_MODE and the other variables of wandb hold. Whatever
    fails there is told once, and the training goes on without.

    Args:
        trainer: whose cfg has WANDB.*, OUTPUT_DIR and what is recorded as the run's config.
    """

    def __init__(self, trainer: DefaultTrainer):
        self._trainer = weakref.proxy(trainer)
        self._run: Any = None
        self._failed = False
        self._last_iteration = -1

    def write(self) -> None:
        by_iteration: dict[int, dict] = defaultdict(dict)
        latest = get_event_storage().latest_with_smoothing_hint(_WINDOW)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_iteration:
                by_iteration[iteration][name] = value
        for iteration in sorted(by_iteration):
            self._last_iteration = iteration
            self._try(self._log, {**by_iteration[iteration], "iteration": iteration})

    def close(self) -> None:
        if self._run is not None:
            self._try(self._run.finish)

    def _try(self, action, *arguments) -> None:
        if self._failed:
            return
        try:
            action(*arguments)
        except Exception as error:  # of a service: whatever it is, the training is worth more
            self._failed = True
            logger.warning(
                f"Weights & Biases failed ({type(error).__name__}: {error}): the training goes on "
                "without it. WANDB_MODE=offline writes to a folder, for `wandb sync` later"
            )

    def _log(self, values: dict) -> None:
        if self._run is None:
            self._run = self._start()
        self._run.log(values)

    def _start(self) -> Any:
        import wandb

        cfg = self._trainer.cfg
        run = wandb.init(
            project=cfg.WANDB.PROJECT,
            entity=cfg.WANDB.ENTITY or None,
            name=cfg.WANDB.NAME or os.path.normpath(cfg.OUTPUT_DIR),
            config=yaml.safe_load(cfg.dump()),
            dir=cfg.OUTPUT_DIR,
            id=run_id(cfg.OUTPUT_DIR, goes_on=self._trainer.start_iter > 0),
            resume="allow",
        )
        # not wandb's own step, which may only rise: a rollback goes back
        run.define_metric("*", step_metric="iteration")
        return run


def run_id(output_dir: str, goes_on: bool) -> str:
    """The id of the run whose training is in `output_dir`: the one kept there, or a new one.

    Args:
        goes_on: whether the training does, or starts anew.
    """
    file = Path(output_dir, _RUN_ID_FILE)
    if goes_on and file.is_file():
        return file.read_text(encoding="utf-8").strip()
    new = uuid.uuid4().hex[:8]
    file.write_text(f"{new}\n", encoding="utf-8")
    return new
