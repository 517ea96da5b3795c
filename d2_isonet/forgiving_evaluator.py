"""An evaluation that a full disk leaves without a result, where it would end the training."""

import logging

from detectron2.evaluation import DatasetEvaluator

from d2_isonet.utils.files import disk_error, is_full_disk

logger = logging.getLogger(__name__)


class ForgivingEvaluator(DatasetEvaluator):
    """Another DatasetEvaluator, which writes files that its result may depend on.

    They are the main process's, after all have told it what they found.
    """

    def __init__(self, evaluator: DatasetEvaluator):
        self.evaluator = evaluator

    def reset(self) -> None:
        self.evaluator.reset()

    def process(self, inputs, outputs) -> None:
        self.evaluator.process(inputs, outputs)

    def evaluate(self) -> dict | None:
        try:
            return self.evaluator.evaluate()
        except Exception as error:  # torch's writer wraps what the system said
            cause = disk_error(error)
            if cause is None or not is_full_disk(cause):
                raise
            logger.warning(
                f"{type(self.evaluator).__name__} could not write its files ({cause.strerror}) and "
                "has no result this time"
            )
            return {}
