"""Checks the device, batch, network, weights and output folder of a run before a model is built."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from d2_isonet.config.loading import fall_back_to_cpu
from d2_isonet.config.options import check_name
from d2_isonet.solver.build import OPTIMIZERS
from d2_isonet.solver.schedule import epochs_to_iterations, scale_to_processes
from d2_isonet.utils.messages import UserError

from .files import output_findings, weights_finding
from .findings import Finding, findings_table, raise_errors
from .network import check_detector, check_names, check_pixels, keys_without_effect, outline
from .training import check_device, check_filter_options, check_precision, check_training_options

_CHECKS: tuple[tuple[str, Callable[[CfgNode], None]], ...] = (
    ("device", check_device),
    ("precision", lambda cfg: check_precision(cfg.SOLVER.AMP.PRECISION)),
    ("optimizer", lambda cfg: check_name("SOLVER.OPTIMIZER", cfg.SOLVER.OPTIMIZER, OPTIMIZERS)),
    ("training", check_training_options),
    ("images", check_pixels),
    ("network", check_detector),
)


def check_run(
    cfg: CfgNode, args: argparse.Namespace, num_training_images: int = 0
) -> tuple[CfgNode, list[Finding]]:
    """Print what the checks of this run find; return cfg scaled to the processes, and the findings.

    Without a GPU, MODEL.DEVICE becomes "cpu". The data sets have checks of their own.

    Args:
        num_training_images: needed if the schedule is in epochs (SOLVER.MAX_EPOCHS).

    Raises:
        UserError: something would end the run or make it worthless; all errors in one message.
    """
    scaled, findings = run_findings(cfg, args, num_training_images)
    if comm.is_main_process():
        print(findings_table(findings), flush=True)
    raise_errors(findings)
    comm.synchronize()  # no process writes to the output folder before all have checked it
    return scaled, findings


def run_findings(
    cfg: CfgNode, args: argparse.Namespace, num_training_images: int = 0
) -> tuple[CfgNode, list[Finding]]:
    """cfg scaled to the processes (as it is if that is an error), and what the checks find."""
    findings: list[Finding] = []

    def collect_error(where: str, check: Callable, *arguments) -> Any:
        """What `check` returns; None if it raises a UserError, which becomes a finding."""
        try:
            return check(*arguments)
        except UserError as error:
            findings.append(Finding("error", where, error.what, error.remedy))
            return None

    if fall_back_to_cpu(cfg):
        what = "there is no CUDA device: running on the CPU (MODEL.DEVICE cpu)"
        findings.append(Finding("warning", "device", what))
    for where, check in _CHECKS:
        collect_error(where, check, cfg)
    scaled = collect_error("batch", scale_to_processes, cfg)
    if scaled is not None:
        scaled = collect_error("schedule", epochs_to_iterations, scaled, num_training_images)
    if scaled is not None:
        findings.append(_step(scaled))
    scaled = scaled or cfg
    model = collect_error("network", _network, cfg)
    if model is not None:
        findings += [_size(cfg, model), *keys_without_effect(cfg)]
        collect_error("training", check_filter_options, cfg, model)
    start = collect_error("weights", weights_finding, cfg, args, model)
    findings += [start] if start else []
    return scaled, [*findings, *output_findings(scaled, args, model)]


def _network(cfg: CfgNode) -> nn.Module | None:
    check_names(cfg)
    return outline(cfg)


def _size(cfg: CfgNode, model: nn.Module) -> Finding:
    number = sum(parameter.numel() for parameter in model.parameters())
    names = f"{cfg.MODEL.META_ARCHITECTURE} on {cfg.MODEL.BACKBONE.NAME}"
    needed, memory = 4 * number, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        room = f"{needed / 1e9:.3g} GB of parameters, this machine has {memory / 1e9:.3g} GB"
        return Finding("error", "network", f"{names}, {room}", "choose a smaller network")
    return Finding("fact", "network", f"{names}, {number / 1e6:.3g} million parameters")


def _step(cfg: CfgNode) -> Finding:
    processes, images = comm.get_world_size(), cfg.SOLVER.IMS_PER_BATCH
    what = (
        f"{cfg.SOLVER.MAX_ITER} iterations of {images} images on {processes} processes "
        f"({cfg.MODEL.DEVICE}), learning rate {cfg.SOLVER.BASE_LR:g}"
    )
    return Finding("fact", "batch", what)
