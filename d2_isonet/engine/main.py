"""The set-up and main part of every training script: validate, scale, log; evaluate or train."""

import argparse
import logging
import os

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.checkpoint.files import checkpoint_to_resume
from d2_isonet.distributed.torchrun import remember_run, resume_if_restarted
from d2_isonet.evaluation.per_class import evaluated_weights
from d2_isonet.modeling.execution import flush_denormals
from d2_isonet.preflight.files import nothing_to_evaluate
from d2_isonet.preflight.run import check_run
from d2_isonet.solver.schedule import what_was_scaled
from d2_isonet.utils.files import tolerate
from d2_isonet.utils.messages import readable_errors, refusals_of_libraries

from .folder_lock import lock_folder, unlock_folder
from .resuming import settle_seed
from .run_record import add_run_record
from .trainer import Trainer
from .writers import tolerate_log_files

logger = logging.getLogger(__name__)


def finish_setup(cfg: CfgNode, args: argparse.Namespace, num_training_images: int = 0) -> CfgNode:
    """Validate the config, scale it to the number of processes, freeze it, open the logs and seed.

    Args:
        num_training_images: needed if the schedule is in epochs (SOLVER.MAX_EPOCHS).
    """
    flush_denormals()
    restarted = resume_if_restarted(args, cfg.OUTPUT_DIR)
    scaled, findings = check_run(cfg, args, num_training_images)
    scaling = what_was_scaled(cfg, scaled)
    cfg = settle_seed(scaled)
    cfg.freeze()
    lock_folder(cfg.OUTPUT_DIR)
    _set_up(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="d2_isonet")
    tolerate_log_files(cfg.OUTPUT_DIR)
    for finding in findings:  # again, for the log of the run
        if finding.severity == "warning":
            logger.warning(str(finding))
    for line in filter(None, (restarted, scaling)):
        logger.info(line)
    add_run_record(cfg.OUTPUT_DIR, args)
    return cfg


def _set_up(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Run detectron2's default_setup; a full disk costs config.yaml alone.

    An evaluation in the folder of a run leaves that run's config.yaml as it is.
    """
    config = f"{cfg.OUTPUT_DIR}/config.yaml"
    if args.eval_only and os.path.isfile(config):
        log_evaluation(cfg.OUTPUT_DIR, args, cfg.dump())
        return seed_all_rng(cfg.SEED + comm.get_rank())
    with tolerate(config, "The run continues without it", only_full_disk=True):
        return default_setup(cfg, args)
    # what default_setup does after writing it
    seed_all_rng(cfg.SEED + comm.get_rank())
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK and not args.eval_only


def log_evaluation(folder: str, args: argparse.Namespace, config: object) -> None:
    """Append to folder/log.txt what default_setup logs, without writing a config.yaml."""
    rank = comm.get_rank()
    setup_logger(folder, distributed_rank=rank, name="fvcore")
    log = setup_logger(folder, distributed_rank=rank)
    log.info(f"Environment info:\n{collect_env_info()}")
    log.info(f"Command line arguments: {args}")
    log.info(f"Evaluating with full config (config.yaml stays that of the training):\n{config}")


def evaluate_or_train(cfg: CfgNode, args: argparse.Namespace, trainer_class: type[Trainer]):
    """Evaluate or train after the set-up, and return the results of the evaluation."""
    try:
        return _evaluate_or_train(cfg, args, trainer_class)
    finally:
        unlock_folder(cfg.OUTPUT_DIR)


def _evaluate_or_train(cfg: CfgNode, args: argparse.Namespace, trainer_class: type[Trainer]):
    if args.eval_only:
        with readable_errors():
            model, path = _load_for_evaluation(cfg, args, trainer_class)
        with readable_errors(of_this_process=True), evaluated_weights(os.path.abspath(path)):
            return trainer_class.test(cfg, model)
    with readable_errors():
        with refusals_of_libraries("the training cannot be built"):
            trainer = trainer_class(cfg, trust_pickle=args.trust_pickle)
        if not cfg.MODEL.WEIGHTS and cfg.MODEL.BACKBONE.FREEZE_AT > 0:
            logger.warning(
                f"MODEL.WEIGHTS is '' and MODEL.BACKBONE.FREEZE_AT {cfg.MODEL.BACKBONE.FREEZE_AT}:"
                " the frozen stages keep their initialization; set MODEL.BACKBONE.FREEZE_AT 0"
            )
        with refusals_of_libraries("the weights cannot be loaded"):
            trainer.resume_or_load(resume=args.resume)
    if comm.is_main_process():
        remember_run(cfg.OUTPUT_DIR)
    with readable_errors(of_this_process=True):
        return trainer.train()


def _load_for_evaluation(cfg: CfgNode, args: argparse.Namespace, trainer_class: type[Trainer]):
    model = trainer_class.build_model(cfg)
    options = {"strict": True, "trust_pickle": args.trust_pickle}
    checkpointer = build_checkpointer(cfg, model, cfg.DATASETS.TEST, **options)
    path = (args.resume and checkpoint_to_resume(cfg.OUTPUT_DIR)) or cfg.MODEL.WEIGHTS
    if not path:
        raise nothing_to_evaluate(cfg)
    with refusals_of_libraries("the weights cannot be loaded"):
        checkpointer.load(path, [])
    return model, path
