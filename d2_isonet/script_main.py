"""What every script does once it is set up: it evaluates or trains."""

import argparse
import logging

from detectron2.config import CfgNode
from detectron2.utils import comm

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.checkpoint.files import checkpoint_to_resume
from d2_isonet.distributed.torchrun import remember_run
from d2_isonet.preflight.weights import nothing_to_evaluate
from d2_isonet.utils.messages import readable_errors

from .engine import Trainer

logger = logging.getLogger(__name__)


def evaluate_or_train(cfg: CfgNode, args: argparse.Namespace, trainer_class: type[Trainer]):
    """What follows the set-up in every script; returns the results of the evaluation."""
    if args.eval_only:
        with readable_errors():
            model = _load_for_evaluation(cfg, args, trainer_class)
        with readable_errors(of_this_process=True):
            return trainer_class.test(cfg, model)
    with readable_errors():
        trainer = trainer_class(cfg, trust_pickle=args.trust_pickle)
        if not cfg.MODEL.WEIGHTS and cfg.MODEL.BACKBONE.FREEZE_AT > 0:
            logger.warning(
                f"MODEL.WEIGHTS is '' and MODEL.BACKBONE.FREEZE_AT {cfg.MODEL.BACKBONE.FREEZE_AT}:"
                " the frozen stages keep their initialization; set MODEL.BACKBONE.FREEZE_AT 0"
            )
        trainer.resume_or_load(resume=args.resume)
    if comm.is_main_process():
        remember_run(cfg.OUTPUT_DIR)
    with readable_errors(of_this_process=True):
        return trainer.train()


def _load_for_evaluation(cfg: CfgNode, args: argparse.Namespace, trainer_class: type[Trainer]):
    model = trainer_class.build_model(cfg)
    checkpointer = build_checkpointer(cfg, model, strict=True, trust_pickle=args.trust_pickle)
    path = (args.resume and checkpoint_to_resume(cfg.OUTPUT_DIR)) or cfg.MODEL.WEIGHTS
    if not path:
        raise nothing_to_evaluate(cfg)
    checkpointer.load(path, [])
    return model
