"""Norm-free isometric backbones for detectron2; importing it registers them, and nothing else."""

from . import backbone, classifier, roi_heads  # noqa: F401  (each registers what it defines)
from .config import add_isonet_config
from .layers import SReLU
from .orthogonality import orthogonal_penalty
from .regularizer import OrthogonalRegularizer
from .weight_init import delta_fill

__version__ = "0.1.0"

__all__ = [
    "OrthogonalRegularizer",
    "SReLU",
    "add_isonet_config",
    "delta_fill",
    "orthogonal_penalty",
]
