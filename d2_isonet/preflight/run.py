"""What is checked of a run before a model is built or a GPU touched, all of it in one table."""

import argparse
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from d2_isonet.config.loading import fall_back_to_cpu
from d2_isonet.config.options import check_name
from d2_isonet.solver.build import OPTIMIZERS
from d2_isonet.solver.schedule import epochs_to_iterations, scale_to_processes

from .findings import Finding, findings_table, raise_errors
from .network import check_detector, check_names, check_pixels, keys_without_effect, outline
from .output_folder import output_findings
from .training import check_device, check_filter_options, check_precision, check_training_options
from .weights import weights_findings


def check_run(
    cfg: CfgNode, args: argparse.Namespace, num_training_images: int = 0
) -> list[Finding]:
    """Print the findings on this run in a table and return them.

    cfg.MODEL.DEVICE becomes "cpu" where there is no GPU.

    Data sets are checked before, by their own modules.

    Raises:
        UserError: something would end the run or make it worthless; all errors in one message.
    """
    findings = run_findings(cfg, args, num_training_images)
    if comm.is_main_process():
        print(findings_table(findings), flush=True)
    raise_errors(findings)
    comm.synchronize()  # nobody writes to the output folder before all have looked at it
    return findings


def run_findings(
    cfg: CfgNode, args: argparse.Namespace, num_training_images: int = 0
) -> list[Finding]:
    """The findings on everything but the data: device, batch, network, weights, output folder."""
    findings: list[Finding] = []

    def passed(where: str, check: Callable, *arguments) -> Any:
        """What `check` returns; None, and a finding more, where it refuses."""
        try:
            return check(*arguments)
        except (ValueError, FileNotFoundError) as error:
            what, _, remedy = str(error).partition("; ")
            findings.append(Finding("error", where, what, remedy))
            return None

    if fall_back_to_cpu(cfg):
        what = "there is no CUDA device: running on the CPU (MODEL.DEVICE cpu)"
        findings.append(Finding("warning", "device", what))
    passed("device", check_device, cfg)
    passed("precision", check_precision, cfg.SOLVER.AMP.PRECISION)
    passed("optimizer", check_name, "SOLVER.OPTIMIZER", cfg.SOLVER.OPTIMIZER, OPTIMIZERS)
    passed("training", check_training_options, cfg)
    scaled = passed("batch", scale_to_processes, cfg)
    if scaled is not None:
        scaled = passed("schedule", epochs_to_iterations, scaled, num_training_images)
    if scaled is not None:
        findings.append(_step(scaled))
    passed("images", check_pixels, cfg)
    if cfg.MODEL.META_ARCHITECTURE != "ImageClassifier":
        passed("network", check_detector, cfg)
    model = passed("network", _network, cfg)
    if model is not None:
        findings.append(_size(cfg, model))
        findings += keys_without_effect(cfg)
        passed("training", check_filter_options, cfg, model)
    findings += passed("weights", weights_findings, cfg, args, model) or []
    findings += passed("OUTPUT_DIR", output_findings, scaled or cfg, args, model) or []
    return findings


def _network(cfg: CfgNode) -> nn.Module | None:
    check_names(cfg)
    return outline(cfg)


def _size(cfg: CfgNode, model: nn.Module) -> Finding:
    number = sum(parameter.numel() for parameter in model.parameters())
    names = f"{cfg.MODEL.META_ARCHITECTURE} on {cfg.MODEL.BACKBONE.NAME}"
    what = f"{names}, {number / 1e6:.3g} million parameters"
    return Finding("fact", "network", what)


def _step(cfg: CfgNode) -> Finding:
    processes, images = comm.get_world_size(), cfg.SOLVER.IMS_PER_BATCH
    what = (
        f"{cfg.SOLVER.MAX_ITER} iterations of {images} images on {processes} processes "
        f"({cfg.MODEL.DEVICE}), learning rate {cfg.SOLVER.BASE_LR:g}"
    )
    return Finding("fact", "batch", what)
