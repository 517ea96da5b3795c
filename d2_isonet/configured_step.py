"""The step of a training as cfg asks for it: precision, and parts of a batch."""

import logging

import torch
from detectron2.config import CfgNode

from .accumulation import AccumulatingTrainer
from .amp import AMPTrainer

logger = logging.getLogger(__name__)


def build_step(cfg: CfgNode, model, data_loader, optimizer) -> AccumulatingTrainer:
    precision, device_type = cfg.SOLVER.AMP.PRECISION, torch.device(cfg.MODEL.DEVICE).type
    steps = {"accumulate_steps": cfg.SOLVER.ACCUMULATE_STEPS}
    if cfg.SOLVER.AMP.ENABLED and (precision, device_type) != ("float16", "cpu"):
        options = {"precision": precision, "device_type": device_type, **steps}
        return AMPTrainer(model, data_loader, optimizer, **options)
    if cfg.SOLVER.AMP.ENABLED:
        logger.warning(
            "SOLVER.AMP.PRECISION 'float16' needs a GPU: training in float32; a CPU has 'bfloat16'"
        )
    return AccumulatingTrainer(model, data_loader, optimizer, **steps)
