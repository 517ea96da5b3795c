"""Logs a training on Weights & Biases. Failures of the service do not end the training."""

import functools
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
_WINDOW = 20  # iterations over which losses are smoothed, as in the log and in TensorBoard


class WandbWriter(EventWriter):
    """Sends every scalar of the event storage to one run of Weights & Biases, by iteration.

    The run starts with the first line of the log. OUTPUT_DIR keeps its id, with which a resumed
    training continues the run. wandb's environment variables, such as WANDB_MODE, apply. After a
    failure, one warning is logged and training continues without it. The cfg of `trainer` has
    WANDB.* and OUTPUT_DIR, and is recorded as the run's config.
    """

    def __init__(self, trainer: DefaultTrainer):
        self._trainer = weakref.proxy(trainer)
        self._failed = False
        self._last_iteration = -1

    def write(self) -> None:
        latest = get_event_storage().latest_with_smoothing_hint(_WINDOW)
        by_iteration: dict[int, dict] = defaultdict(dict)
        for name, (value, iteration) in latest.items():
            by_iteration[iteration][name] = value
        for iteration in sorted(x for x in by_iteration if x > self._last_iteration):
            self._last_iteration = iteration
            self._try("log", {**by_iteration[iteration], "iteration": iteration})

    def close(self) -> None:
        if "_run" in vars(self):
            self._try("finish")

    def _try(self, method: str, *arguments) -> None:
        if self._failed:
            return
        try:
            getattr(self._run, method)(*arguments)
        except Exception as error:  # no failure of a service may end a training
            self._failed = True
            logger.warning(
                f"Weights & Biases failed ({type(error).__name__}: {error}): training continues "
                "without it. WANDB_MODE=offline writes to a folder, for `wandb sync` later"
            )

    @functools.cached_property
    def _run(self) -> Any:
        """The run, which the first use starts."""
        import wandb

        cfg = self._trainer.cfg
        run = wandb.init(
            project=cfg.WANDB.PROJECT,
            entity=cfg.WANDB.ENTITY or None,
            name=cfg.WANDB.NAME or os.path.normpath(cfg.OUTPUT_DIR),
            config=yaml.safe_load(cfg.dump()),
            dir=cfg.OUTPUT_DIR,
            id=run_id(cfg.OUTPUT_DIR, resumes=self._trainer.start_iter > 0),
            resume="allow",
        )
        # wandb's own step can only rise, but a resumed run may repeat iterations
        run.define_metric("*", step_metric="iteration")
        return run


def run_id(output_dir: str, resumes: bool) -> str:
    """The run's id: a resumed training reads it in `output_dir`, a new one draws and writes it."""
    file = Path(output_dir, _RUN_ID_FILE)
    if resumes and file.is_file():
        return file.read_text(encoding="utf-8").strip()
    new = uuid.uuid4().hex[:8]
    file.write_text(f"{new}\n", encoding="utf-8")
    return new
