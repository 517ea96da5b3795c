"""How a network is executed: memory format, recomputation, compilation, denormal numbers."""

import functools
import os
import shutil
from collections.abc import Callable
from typing import TypeVar

import torch
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase
from torch import nn
from torch.utils.checkpoint import checkpoint

from d2_isonet.utils.messages import UserError

Module = TypeVar("Module", bound=nn.Module)


def set_execution(
    module: Module, channels_last: bool = False, checkpointing: bool = False, compile: bool = False
) -> Module:
    """Set how `module` is executed and return it; names and values of its tensors do not change.

    Args:
        channels_last: store the channels of weights, and so of activations, next to each other in
            memory; tensor cores are faster with this format.
        checkpointing: do not keep a block's activations, compute them again in backward (Chen et
            al. 2016, "Training deep nets with sublinear memory cost"): a third more computation,
            memory for one block at a time.
        compile: use torch.compile; it compiles when the module first runs, for each kind of input.

    Raises:
        UserError: compile, on a machine without a C++ compiler.
    """
    if channels_last:
        module.to(memory_format=torch.channels_last)
    if checkpointing:
        recompute_blocks(module)
    if compile:
        _require_compiler()
        module.compile()
    return module


def flush_denormals() -> None:
    """Flush denormals (numbers below 1.2e-38) to zero on this process's CPU, which computes many
    times slower with them. The signals of a collapsed deep network can become that small.
    """
    torch.set_flush_denormal(True)


def recompute_blocks(module: nn.Module, enable: bool = True) -> None:
    """Switch on or off that the blocks of `module` are computed again in backward."""
    for block in module.modules():
        if isinstance(block, CNNBlockBase):
            vars(block).pop("forward", None)
            if enable:
                block.forward = functools.partial(_recomputed, block.forward)


def _recomputed(forward: Callable, x: torch.Tensor) -> torch.Tensor:
    return checkpoint(forward, x, use_reentrant=False) if torch.is_grad_enabled() else forward(x)


def _require_compiler() -> None:
    compilers = [os.environ.get("CXX") or "g++", "clang++", "cl"]
    if not any(shutil.which(compiler) for compiler in compilers):
        what = "MODEL.BACKBONE.COMPILE is True, but torch.compile needs a C++ compiler and none of "
        raise UserError(f"{what}{compilers} is on the PATH", "install one, or set it to False")


def run_plainly(cfg: CfgNode) -> CfgNode:
    """A copy of `cfg` for the CPU, without channels_last, checkpointing and compilation."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    for key in ("CHANNELS_LAST", "CHECKPOINTING", "COMPILE"):
        cfg.MODEL.BACKBONE[key] = False
    return cfg
