"""From a config to one that this machine can run: checked, scaled, frozen, with logs open."""

import argparse
import logging

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from d2_isonet.distributed.torchrun import resume_if_restarted
from d2_isonet.modeling.execution import flush_denormals
from d2_isonet.preflight.run import check_run
from d2_isonet.solver.schedule import epochs_to_iterations, scale_to_processes, what_was_scaled
from d2_isonet.utils.files import is_full_disk

from .forgiving_log import forgive_log_files
from .resumed_training import settle_seed
from .run_record import add_run_record

logger = logging.getLogger(__name__)


def finish_setup(cfg: CfgNode, args: argparse.Namespace, num_training_images: int = 0) -> CfgNode:
    """Scale to the processes at hand, check, freeze, open the logs and seed.

    Args:
        num_training_images: needed where the schedule is in epochs (SOLVER.MAX_EPOCHS).
    """
    flush_denormals()
    restarted = resume_if_restarted(args, cfg.OUTPUT_DIR)
    findings = check_run(cfg, args, num_training_images)
    scaled = scale_to_processes(cfg)
    scaling = what_was_scaled(cfg, scaled)
    cfg = settle_seed(epochs_to_iterations(scaled, num_training_images))
    cfg.freeze()
    _set_up(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="d2_isonet")
    forgive_log_files(cfg.OUTPUT_DIR)
    for finding in findings:  # once more, for the log of the run
        if finding.severity == "warning":
            logger.warning(str(finding))
    for line in filter(None, (restarted, scaling)):
        logger.info(line)
    add_run_record(cfg.OUTPUT_DIR, args)
    return cfg


def _set_up(cfg: CfgNode, args: argparse.Namespace) -> None:
    """detectron2's default_setup, of which a full disk costs config.yaml alone."""
    try:
        default_setup(cfg, args)
    except OSError as error:
        if not is_full_disk(error):
            raise
        logger.warning(f"{cfg.OUTPUT_DIR}/config.yaml could not be written: {error.strerror}")
        # what it does after writing that
        seed_all_rng(cfg.SEED + comm.get_rank())
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK and not args.eval_only
