"""Logs that a full disk does not turn into the end of a training."""

import logging

from detectron2.utils.events import EventWriter

logger = logging.getLogger(__name__)


class ForgivingWriter(EventWriter):
    """Another EventWriter whose OSErrors are told once and lose lines of the log, not the run."""

    def __init__(self, writer: EventWriter):
        self.writer = writer
        self.failed = False

    def write(self, **options) -> None:
        self._try(self.writer.write, **options)

    def close(self) -> None:
        self._try(self.writer.close)

    def _try(self, action, **options) -> None:
        try:
            action(**options)
        except OSError as error:
            if not self.failed:
                name = type(self.writer).__name__
                logger.warning(f"{name} cannot write ({error}); lines of it may be missing")
            self.failed = True
        else:
            self.failed = False
