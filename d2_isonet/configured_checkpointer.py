"""The checkpointer as cfg asks for it: where it writes, and which weights it takes."""

from detectron2.config import CfgNode

from d2_isonet.data.categories import categories_record

from .checkpoint import ISONetCheckpointer
from .weights_record import architecture


def build_checkpointer(cfg: CfgNode, model, **options) -> ISONetCheckpointer:
    """The checkpointer of cfg.OUTPUT_DIR, which knows what network and pixels cfg asks for.

    Its files also record the classes of the training set.
    """
    meta = {**describe(cfg), **categories_record(cfg)}
    from_conv2d = cfg.MODEL.DECOUPLED.FROM_CONV2D
    return ISONetCheckpointer(
        model, cfg.OUTPUT_DIR, expected_meta=meta, from_conv2d=from_conv2d, **options
    )


def describe(cfg: CfgNode) -> dict:
    """The part of backbone.pth's meta record that cfg decides."""
    pixels = {
        "format": cfg.INPUT.FORMAT,
        "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),
        "pixel_std": list(cfg.MODEL.PIXEL_STD),
    }
    return {"architecture": architecture(cfg), "input": pixels}
