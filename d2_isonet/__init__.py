"""Norm-free isometric backbones for detectron2; importing it registers them, and nothing else."""

from . import backbone, classifier, cnn9, roi_heads  # noqa: F401  (each registers what it defines)
from .config import add_isonet_config
from .decoupled import DecoupledConv2d
from .layers import SReLU
from .orthogonality import orthogonal_penalty
from .regularizer import OrthogonalRegularizer
from .weight_init import delta_fill

__version__ = "0.1.0"

__all__ = [
    "DecoupledConv2d",
    "OrthogonalRegularizer",
    "SReLU",
    "add_isonet_config",
    "delta_fill",
    "orthogonal_penalty",
]
